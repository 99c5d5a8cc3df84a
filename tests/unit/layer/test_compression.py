"""gzip, zstd and plain tar: all of what their standards allow, nothing else, within limits (B47 to B50)."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard

from ducc.image.digest import Digest, DigestMismatch
from ducc.layer.decompress import DecompressedStream, LayerTooLarge, UnreadableCompression
from ducc.layer.entries import DiffIdMismatch, LayerReader
from ducc.layer.stream import SizeMismatch, VerifiedStream
from ducc.layer.tar import MalformedArchive
from tests.unit.layer.archives import archive, header, member, read

NOISE = os.urandom(20_000)
TAR = archive(member(b"a", NOISE), member(b"b", b"text " * 10_000))


class Dribble:
    """A source that gives at most *most* bytes a read, as sockets do."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self._most = io.BytesIO(data), most

    def read(self, size: int) -> bytes:
        return self._data.read(min(size, self._most))


def decompressed(blob: bytes, most: int = 1 << 20, **limits: int) -> bytes:
    stream = DecompressedStream(Dribble(blob, most), "layer", **limits)
    return b"".join(iter(lambda: stream.read(1 << 20), b""))


def gzipped(data: bytes, flags: int = 0, extra: bytes = b"", name: bytes = b"", header_crc: int | None = None) -> bytes:
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(5) + b"\xff"
    if flags & 4:
        head += struct.pack("<H", len(extra)) + extra
    if flags & 8:
        head += name + b"\0"
    if flags & 16:
        head += b"comment\0"
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF if header_crc is None else header_crc)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    return head + deflate.compress(data) + deflate.flush() + struct.pack("<II", zlib.crc32(data), len(data))


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"12345"

ACCEPTED = {
    "B50 plain": TAR,
    "B49 gzip": gzipped(TAR),
    "B49 gzip, two members and an empty one": gzipped(TAR[:700]) + gzipped(b"") + gzipped(TAR[700:]),
    "B49 gzip, every field": gzipped(TAR, 1 | 2 | 4 | 8 | 16, b"extra", b"name"),
    "B49 gzip, extra field of 64 KiB": gzipped(TAR, 4, bytes(65535)),
    "B49 gzip, a member for each block": b"".join(gzipped(TAR[i : i + 512]) for i in range(0, len(TAR), 512)),
    "B49 zstd": zstd(TAR),
    "B49 zstd with a checksum, without a size": zstd(TAR, write_checksum=True, write_content_size=False),
    "B49 zstd, two frames and an empty one": zstd(TAR[:700]) + zstd(b"") + zstd(TAR[700:]),
    "B49 zstd, skippable frames": SKIPPABLE + zstd(TAR[:700]) + SKIPPABLE + zstd(TAR[700:]) + SKIPPABLE,
}


@pytest.mark.parametrize("most", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_however_it_arrives(case: str, most: int) -> None:
    assert decompressed(ACCEPTED[case], most) == TAR


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_layer_is_read_from_each_form(case: str) -> None:
    assert read(ACCEPTED[case], TAR).contents == {b"/a": NOISE, b"/b": b"text " * 10_000}


GZIP, ZSTD = gzipped(TAR), zstd(TAR, write_checksum=True)
REFUSED = {
    "B47 nothing": (b"", "empty"),
    "B50 xz": (lzma.compress(TAR), "neither"),
    "B50 bzip2": (bz2.compress(TAR), "neither"),
    "B50 text": (b"<html>please log in</html>" * 100, "neither"),
    "B50 short text": (b"<html>", "neither"),
    "B50 tar with a broken first header": (header(b"x", checksum=b"0000001\0"), "neither"),
    "B49 gzip with a wrong CRC": (GZIP[:-8] + bytes(4) + GZIP[-4:], "damaged"),
    "B49 gzip with a wrong length": (GZIP[:-4] + bytes(4), "damaged"),
    "B49 gzip without its trailer": (GZIP[:-8], "too early"),
    "B49 gzip with half of its trailer": (GZIP[:-3], "too early"),
    "B49 gzip, cut": (GZIP[:1000], "too early"),
    "B49 gzip, cut in the second header": (GZIP + GZIP[:5], "inside a header"),
    "B49 gzip, zeros behind": (GZIP + bytes(512), "follows"),
    "B49 gzip, plain tar behind": (GZIP + TAR, "follows"),
    "B49 gzip, a byte behind": (GZIP + b"\x1f", "inside a header"),
    "B49 gzip with an unknown method": (GZIP[:2] + b"\x07" + GZIP[3:], "not gzip"),
    "B49 gzip with a wrong header CRC": (gzipped(TAR, 2, header_crc=1), "checksum of a gzip header"),
    "B49 gzip with a name of 64 KiB": (gzipped(TAR, 8, name=b"n" * 65536), "name of more than"),
    "B49 gzip with an endless name": (b"\x1f\x8b\x08\x08" + b"n" * 100_000, "name of more than"),
    "B49 gzip with a broken block": (GZIP[:10] + b"\xff" * 100 + GZIP[110:], "damaged"),
    "B49 zstd with a wrong checksum": (ZSTD[:-1] + bytes([ZSTD[-1] ^ 1]), "damaged"),
    "B49 zstd, cut": (ZSTD[:-100], "too early"),
    "B49 zstd, one byte cut": (ZSTD[:-1], "too early"),
    "B49 zstd, zeros behind": (ZSTD + bytes(512), "damaged"),
    "B49 zstd that wants a window of 2 GiB": (b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00", "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("most", [7, 1 << 20])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, most: int) -> None:
    blob, reason = REFUSED[case]
    with pytest.raises(UnreadableCompression, match=reason):
        decompressed(blob, most)


def test_b47_an_empty_stream_in_gzip_is_an_empty_layer() -> None:
    assert read(gzipped(b""), b"").members == []


def test_b48_layer_beyond_the_maximal_size() -> None:
    assert decompressed(GZIP, max_size=len(TAR)) == TAR
    with pytest.raises(LayerTooLarge, match="larger than"):
        decompressed(GZIP, max_size=len(TAR) - 1)


class Endless:
    """The same bytes again and again."""

    def __init__(self, first: bytes, again: bytes) -> None:
        self._parts: Iterator[bytes] = itertools.chain([first], itertools.repeat(again))

    def read(self, size: int) -> bytes:
        return next(self._parts)


def test_b48_gzip_bomb() -> None:
    part = gzip.compress(bytes(64 << 20), 9)
    with pytest.raises(LayerTooLarge, match="200 times"):
        drain(DecompressedStream(Endless(part, part), "layer"))


def test_b48_zstd_bomb_in_bounded_memory() -> None:
    part = zstandard.ZstdCompressor(level=19).compress(bytes(512 << 20))
    stream = DecompressedStream(Endless(part, part), "layer")
    with pytest.raises(LayerTooLarge, match="200 times"):
        drain(stream)
    assert stream.size < (1 << 30) + (1 << 26)


def drain(stream: DecompressedStream) -> None:
    while stream.read(1 << 20):
        pass


def layer(blob: bytes, named: bytes, tar: bytes) -> LayerReader:
    return LayerReader(VerifiedStream(io.BytesIO(blob), Digest.of(named), len(named), "blob"), Digest.of(tar))


def exhaust(reader: LayerReader) -> None:
    for _ in reader:
        pass


def test_b60_wrong_diff_id() -> None:
    with pytest.raises(DiffIdMismatch, match="uncompressed: expected") as error:
        exhaust(layer(GZIP, GZIP, b"other"))
    assert not error.value.retryable


@pytest.mark.parametrize("form", [lambda tar: tar, gzipped, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("at", [0, 3, 12, 20, 300, 5_000, -600, -5, -1])
def test_a_flipped_bit_is_a_damaged_blob_wherever_it_is(form: Callable[[bytes], bytes], at: int) -> None:
    blob = bytearray(form(TAR))
    blob[at] ^= 4
    with pytest.raises(DigestMismatch) as error:
        exhaust(layer(bytes(blob), form(TAR), TAR))
    assert error.value.retryable


@pytest.mark.parametrize("form", [lambda tar: tar, gzipped, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("length", [0, 10, 600, 5_000, -1])
def test_a_truncated_blob_is_called_so(form: Callable[[bytes], bytes], length: int) -> None:
    blob = form(TAR)
    with pytest.raises(SizeMismatch):
        exhaust(layer(blob[:length], blob, TAR))


def test_a_malformed_archive_in_a_sound_blob_is_called_so() -> None:
    broken = TAR[:-1024] + b"garbage".ljust(512)
    with pytest.raises(MalformedArchive, match="checksum"):
        exhaust(layer(gzipped(broken), gzipped(broken), broken))
