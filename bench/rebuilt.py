"""An image built again: every file as it was, every archive another, so that no digest of a layer is known."""

import io
import tarfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import deflate
from isal import igzip

from tests.builders import Image, Layer, push
from tests.registry import Registry

COMPRESSION_LEVEL = 6


def push_rebuilt(registry: Registry, blobs: Sequence[Path], number: int) -> str:
    """Push an image whose files are all *number* + 1 seconds younger than in *blobs*; return its reference.

    In a process of its own: the kernel counts what a parent holds as the peak of the processes that it starts.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_push, registry, blobs, number).result()


def _push(registry: Registry, blobs: Sequence[Path], number: int) -> str:
    layers = [_layer(_later(igzip.decompress(blob.read_bytes()), number + 1)) for blob in blobs]
    push(registry.host, "bench/rebuilt", f"v{number}", Image(layers))
    return f"{registry.host}/bench/rebuilt:v{number}"


def _layer(archive: bytes) -> Layer:
    return Layer(archive, blob=bytes(deflate.gzip_compress(archive, COMPRESSION_LEVEL)))


def _later(archive: bytes, seconds: int) -> bytes:
    """The same members, each *seconds* younger."""
    output = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in source:
            member.mtime += seconds
            member.pax_headers.pop("mtime", None)
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
    return output.getvalue()
