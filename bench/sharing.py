"""Where to nest: what image families share, and what a start touches, for several weights of `SplitPolicy`.

Only names matter here, so contents are named and not stored. Three families: images on one base, ten nightly tags of
one image, and unrelated applications on one base.
"""

import hashlib
import io
import random
import stat
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isal import igzip

from bench.conversion import layer_blobs
from ducc.catalog.split import SplitPolicy
from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import Directory, directories
from ducc.catalog.writer import write_tree
from ducc.cvmfs.compression import compressor, inflate
from ducc.cvmfs.objectname import Suffix
from ducc.image.digest import Digest
from ducc.ingest.contents import Content
from ducc.ingest.graft import Layer, graft
from ducc.ingest.layer_tree import LayerTreeBuilder
from ducc.ingest.notes import LayerNotes
from ducc.layer.entries import Kind, LayerReader
from ducc.layer.stream import VerifiedStream
from ducc.storage.memory import MemoryStore
from tests.images import build

WEIGHTS = ((500, 60), (1_000, 125), (2_000, 250), (5_000, 500), (10_000, 500), (10**9, 10**9))
NIGHTLY_TAGS, NIGHTLY_FILES = 10, 40
APPLICATIONS = ("usr/share/perl", "usr/lib/gcc", "usr/include", "usr/share/doc", "usr/share/zoneinfo", "usr/share/man",
                "usr/lib/python3", "usr/share/locale")  # fmt: skip
STARTED = (b"/usr/bin", b"/usr/lib/x86_64-linux-gnu", b"/etc", b"/usr/lib/python3", b"/usr/local/lib")

Named = tuple[Directory, LayerNotes]


@dataclass(frozen=True, slots=True)
class Shared:
    """Of one family: catalogs and their stored kilobytes an image, and how many of these bytes were there already."""

    catalogs: float
    kilobytes: float
    known: float
    touched: int


def table() -> str:
    """Return one line for each policy: what the three families share, and what a start touches."""
    families = _families()
    lines = [f"{'heavy/light':>14}  " + "  ".join(f"{name:^34}" for name in families) + "  start touches"]
    for heavy, light in WEIGHTS:
        results = [_publish(images, SplitPolicy(heavy, light)) for images in families.values()]
        cells = (f"{r.catalogs:5.0f} catalogs {r.kilobytes:6.0f} kB {r.known:4.0%} known" for r in results)
        lines.append(f"{heavy:>8}/{light:<5}  " + "  ".join(cells) + f"  {results[0].touched:>5} catalogs")
    return "\n".join(lines)


def _publish(images: Sequence[Sequence[Named]], policy: SplitPolicy) -> Shared:
    store = MemoryStore()
    catalogs = CatalogStore(store, compressor("libdeflate-1"), inflate)
    count = total = new = touched = 0
    with store.session():
        for layers in images:
            stack = [Layer(str(n), catalogs.load(write_tree(root, catalogs, policy).ref), notes)
                     for n, (root, notes) in enumerate(layers)]  # fmt: skip
            store.flush()  # what layers wrote is there before the image
            before = set(store.objects)
            ref = write_tree(graft(stack, catalogs)[0], catalogs, policy).ref
            store.flush()
            written = {name for name in set(store.objects) - before if name.suffix is Suffix.CATALOG}
            reached = _reached(catalogs, ref)
            sizes = {name.digest: len(data) for name, data in store.objects.items()}
            count += len(reached)
            total += sum(sizes[digest] for digest in reached)
            new += sum(sizes[name.digest] for name in written)
            touched = sum(any(path == p or path.startswith(p + b"/") or not path or p.startswith(path + b"/")
                              for p in STARTED) for path in reached.values())  # fmt: skip
    return Shared(count / len(images), total / len(images) / 1000, 1 - new / total, touched)


def _reached(catalogs: CatalogStore, root: object) -> dict[bytes, bytes]:
    """All catalogs of a tree: digest → path."""
    found, pending = {}, [(root, b"")]
    while pending:
        ref, path = pending.pop()
        found[ref.digest] = path
        catalog = catalogs.open_catalog(ref)
        pending += [(nested, place) for place, nested in catalog.nested().items()]
        catalog.close()
    return found


def _families() -> dict[str, list[list[Named]]]:
    chain = [_read(blob) for blob in layer_blobs(build("scientific"))]
    pruned = [_read(blob) for blob in layer_blobs(build("pruned"))]
    base, python = chain[: len(layer_blobs(build("base")))], chain[: len(layer_blobs(build("python")))]
    return {
        "one base": [base, python, chain, pruned],
        "nightly tags": [[*chain, _nightly(chain, number)] for number in range(NIGHTLY_TAGS)],
        "applications": [[*base, _packed(Path("/") / top)] for top in APPLICATIONS if (Path("/") / top).is_dir()],
    }


def _nightly(chain: Sequence[Named], number: int) -> Named:
    """A layer that replaces some files of what lies below, here and there."""
    source = random.Random(number)
    files = [path + b"/" + name for path, directory in directories(chain[-1][0]) for name in directory.children]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in source.sample(files, NIGHTLY_FILES):
            tar.addfile(tarfile.TarInfo(path[1:].decode()))
    return _members(archive.getvalue())


def _packed(top: Path) -> Named:
    """A layer with what this machine has below *top*; contents are left out."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(top.rglob("*")):
            member = tarfile.TarInfo(str(path.relative_to("/")))
            status = path.lstat()
            member.type, member.mode = tarfile.REGTYPE, stat.S_IMODE(status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                member.type = tarfile.DIRTYPE
            tar.addfile(member)
    return _members(archive.getvalue())


def _read(blob: Path) -> Named:
    return _members(igzip.decompress(blob.read_bytes()))


def _members(archive: bytes) -> Named:
    digest = Digest.of(archive)
    reader = LayerReader(VerifiedStream(io.BytesIO(archive), digest, len(archive), "layer"), digest)
    builder = LayerTreeBuilder(str(digest))
    for member in reader:
        named = hashlib.sha1(b"%b %d" % (member.path, member.size)).digest() if member.kind is Kind.FILE else None
        builder.add(member, Content(named) if named else None)
    return builder.finish()
