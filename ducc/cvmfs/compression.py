"""How objects are compressed. The bytes name the objects, so a repository chooses once, when it is made.

All but one give the same bytes on every processor: otherwise two publishers would store one file twice, and equal
images would have unequal trees. The exception is ISA-L, the fastest of all: its bytes are the same on x86-64 processors
with SSE 4.2 only, so who chooses it must let no others publish. It inflates everywhere.
"""

import zlib
from collections.abc import Callable
from functools import partial
from typing import cast

import deflate
from isal import isal_zlib
from isal.igzip_lib import IsalError

from ducc.errors import BadInput, DuccError

Compress = Callable[[bytes | bytearray | memoryview], bytes | bytearray]

COMPRESSORS: dict[str, Compress] = {
    "libdeflate-1": partial(deflate.zlib_compress, compresslevel=1),
    "libdeflate-5": partial(deflate.zlib_compress, compresslevel=5),
    "zlib-6": partial(zlib.compress, level=6),
    "isal-1": partial(isal_zlib.compress, level=1),
}


_DAMAGED = cast(type[Exception], IsalError)


class BadObject(DuccError):
    """An object's bytes, whose hash is right, are not a zlib stream of the length that a catalog gives."""

    exit_code = 67


def compressor(name: str) -> Compress:
    """Return the compressor that a repository's settings name."""
    try:
        return COMPRESSORS[name]
    except KeyError:
        raise BadInput(f"compressor {name!r} is not known here; there are {', '.join(COMPRESSORS)}") from None


def inflate(stored: bytes, size: int) -> bytes:
    """Inflate an object to exactly *size* bytes, and never to more."""
    data = inflate_at_most(stored, size)
    if len(data) != size:
        raise BadObject(f"an object inflates to {len(data)} bytes, its catalog says {size}")
    return data


def inflate_at_most(stored: bytes, limit: int) -> bytes:
    """Inflate an object whose size nothing tells, if it has no more than *limit* bytes."""
    inflater = isal_zlib.decompressobj()
    try:
        data = inflater.decompress(stored, limit + 1)
    except _DAMAGED as error:
        raise BadObject(f"an object does not inflate: {error}") from error
    if len(data) > limit:
        raise BadObject(f"an object inflates to more than {limit} bytes")
    if not inflater.eof:
        raise BadObject("an object ends before its compressed stream does")
    return bytes(data)
