"""Images too big for memory, written straight into an OCI layout: one layer of as many bytes or names as wanted."""

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from isal import igzip

from tests.builders import Image, Layer, sha256, write_layout

PIECE = 1 << 20
_NOISE = random.Random(0).randbytes(PIECE // 16)
_FILLING = _NOISE + bytes(PIECE - len(_NOISE))  # compresses to a sixteenth
_END = bytes(1024)


def big_files(count: int, pieces: int) -> Iterator[bytes]:
    """An archive of *count* files of *pieces* mebibytes each; no two mebibytes are equal."""
    for number in range(count):
        yield _header(f"data{number}", pieces * PIECE)
        for piece in range(pieces):
            yield b"%16d" % (number * pieces + piece) + _FILLING[16:]
    yield _END


def many_names(directories: int, files: int) -> Iterator[bytes]:
    """An archive of *directories* times *files* small files, with a thousand contents in all."""
    for directory in range(directories):
        block = io.BytesIO()
        for number in range(files):
            block.write(_header(f"d{directory}/f{number}", 16))
            block.write(b"%16d" % (number % 1000) + bytes(496))
        yield block.getvalue()
    yield _END


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def write_giant(layout: Path, tag: str, archive: Iterable[bytes]) -> int:
    """Write an image with one layer, and return how many bytes its archive has. Memory stays small."""
    write_layout(layout, {tag: Image([Layer(b"", blob=b"a place for the real one")])})
    blobs = layout / "blobs" / "sha256"
    with (blobs / "layer").open("wb") as output:
        diff_id, tar_size = _compress(archive, output)
    blob = blobs / "layer"
    with blob.open("rb") as stored:
        digest = hashlib.file_digest(stored, "sha256").hexdigest()
    size = blob.stat().st_size
    blob.rename(blobs / digest)
    _rewrite_manifest(layout, diff_id, f"sha256:{digest}", size)
    return tar_size


def _compress(archive: Iterable[bytes], output: IO[bytes]) -> tuple[str, int]:
    diff_id, tar_size = hashlib.sha256(), 0
    with igzip.open(output, "wb", compresslevel=0) as blob:
        for piece in archive:
            diff_id.update(piece)
            tar_size += len(piece)
            blob.write(piece)
    return f"sha256:{diff_id.hexdigest()}", tar_size


def _rewrite_manifest(layout: Path, diff_id: str, digest: str, size: int) -> None:
    """Let config, manifest and index of the only image speak of the layer that is there by now."""
    blobs = layout / "blobs" / "sha256"
    index_path = layout / "index.json"
    index = json.loads(index_path.read_text())
    (entry,) = index["manifests"]
    manifest = json.loads((blobs / entry["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    config["rootfs"]["diff_ids"] = [diff_id]
    manifest["config"].update(_stored(blobs, config))
    manifest["layers"][0].update(digest=digest, size=size)
    entry.update(_stored(blobs, manifest))
    index_path.write_text(json.dumps(index))


def _stored(blobs: Path, document: dict[str, object]) -> dict[str, object]:
    data = json.dumps(document).encode()
    (blobs / sha256(data)[7:]).write_bytes(data)
    return {"digest": sha256(data), "size": len(data)}
