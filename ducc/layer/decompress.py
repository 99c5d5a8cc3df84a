"""A layer's tar, whatever it was compressed with: gzip, zstd or not at all.

Recognised by the first bytes; the media type is not asked, because registries hold layers that are labelled wrongly
and the diff id decides in the end. Everything that follows must be of the same form up to the last byte: further
gzip members and further zstd frames are read, as RFC 1952 and RFC 8878 want, anything else is refused.
A layer that grows beyond its limits is refused while it grows.
"""

import struct
from collections.abc import Callable, Iterator
from typing import cast
from zlib import crc32

import zstandard
from isal import igzip_lib

from ducc.errors import DuccError
from ducc.layer.block import BLOCK_SIZE, is_header
from ducc.layer.stream import READ_SIZE, Readable
from ducc.layer.window import Window

MAX_LAYER_SIZE = 64 << 30
MAX_RATIO = 200
RATIO_COUNTS_FROM = 1 << 30  # zeros compress well: small layers may be of nothing else

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_HEADER = struct.Struct("<2sBB6x")
_DEFLATE = 8
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
_MAX_GZIP_TEXT = 511  # as Go's reader

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes((low,)) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))
_ZSTD_MAX_WINDOW = 1 << 27
_ZSTD_STEP = 2048  # four bytes can become 128 KiB, so this much input becomes at most 64 MiB

_INPUT = 1 << 18
_LIBRARY_ERRORS: tuple[type[Exception], ...] = (cast(type[Exception], igzip_lib.IsalError), zstandard.ZstdError)


class UnreadableCompression(DuccError):
    """A layer that is none of gzip, zstd and plain tar, or a damaged one of them."""

    exit_code = 44

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"{layer}: {reason}")
        self.layer, self.reason = layer, reason


class LayerTooLarge(DuccError):
    """A layer that grows beyond what its limits allow, most often on purpose."""

    exit_code = 45


class DecompressedStream:
    """The tar inside *blob*; *layer* is how errors call it.

    The first read looks at the form, so that it is a read that raises `UnreadableCompression` or `LayerTooLarge`.
    """

    def __init__(self, blob: Readable, layer: str, max_size: int = MAX_LAYER_SIZE) -> None:
        self.size = 0  # so far
        self._layer, self._max_size = layer, max_size
        self._window = Window(blob)
        self._chunks = self._decompress()
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes, and none only at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._grow(len(chunk))
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _decompress(self) -> Iterator[bytes]:
        try:
            yield from _form(self._window.peek(BLOCK_SIZE))(self._window)
        except _Damaged as damage:
            raise UnreadableCompression(self._layer, str(damage)) from None
        except _LIBRARY_ERRORS as error:
            raise UnreadableCompression(self._layer, f"its compressed form is damaged: {error}") from error

    def _grow(self, size: int) -> None:
        self.size += size
        if self.size > self._max_size:
            raise LayerTooLarge(f"{self._layer}: it is larger than {self._max_size} bytes uncompressed")
        if self.size > RATIO_COUNTS_FROM and self.size > MAX_RATIO * self._window.position:
            raise LayerTooLarge(f"{self._layer}: it grows to more than {MAX_RATIO} times its compressed size")


class _Damaged(ValueError):
    """Why compressed bytes can't be read, said where the layer is not known."""


def _form(head: bytes) -> Callable[[Window], Iterator[bytes]]:
    if head.startswith(_GZIP_MAGIC):
        return _gunzip
    if head.startswith((_ZSTD_MAGIC, *_ZSTD_SKIPPABLE)):
        return _unzstd
    if is_header(head):
        return _plain
    raise _Damaged("it is empty" if not head else "it is neither gzip nor zstd nor tar")


def _plain(window: Window) -> Iterator[bytes]:
    while chunk := window.take(READ_SIZE):
        yield chunk


def _gunzip(window: Window) -> Iterator[bytes]:
    while window.peek(1):
        _pass_gzip_header(window)
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP_NO_HDR_VER)
        while not member.eof:
            yield member.decompress(_more(window, _INPUT) if member.needs_input else b"", READ_SIZE)
        window.put_back(member.unused_data)


def _pass_gzip_header(window: Window) -> None:
    """Read the header of a gzip member. (ISA-L misreads one that arrives in two pieces, so it never sees any.)"""
    header = _exactly(window, _GZIP_HEADER.size)
    magic, method, flags = _GZIP_HEADER.unpack(header)
    if magic != _GZIP_MAGIC or method != _DEFLATE:
        raise _Damaged("something that is not gzip follows its gzip data")
    if flags & _EXTRA:
        length = _exactly(window, 2)
        header += length + _exactly(window, int.from_bytes(length, "little"))
    for text in (_NAME, _COMMENT):
        if flags & text:
            header += _gzip_text(window)
    if flags & _HEADER_CRC and int.from_bytes(_exactly(window, 2), "little") != crc32(header) & 0xFFFF:
        raise _Damaged("the checksum of a gzip header is wrong")


def _gzip_text(window: Window) -> bytes:
    text, nul, _ = window.peek(_MAX_GZIP_TEXT + 1).partition(b"\0")
    if not nul:
        raise _Damaged(f"a gzip header has a name of more than {_MAX_GZIP_TEXT} bytes")
    return _exactly(window, len(text) + 1)


def _unzstd(window: Window) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    while window.peek(1):
        frame = decompressor.decompressobj(write_size=READ_SIZE)
        while not frame.eof:
            output = frame.decompress(_more(window, _ZSTD_STEP))
            for start in range(0, len(output), READ_SIZE):
                yield output[start : start + READ_SIZE]
        window.put_back(frame.unused_data)


def _more(window: Window, most: int) -> memoryview:
    if piece := window.piece(most):
        return piece
    raise _Damaged("its compressed form ends too early")


def _exactly(window: Window, length: int) -> bytes:
    data = window.take(length)
    if len(data) < length:
        raise _Damaged("its compressed form ends inside a header")
    return data
