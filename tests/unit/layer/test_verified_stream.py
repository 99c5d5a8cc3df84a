"""Bytes are those that were named, or reading them to the end raises."""

import io

import pytest

from ducc.image.digest import Digest, DigestMismatch
from ducc.layer.stream import SizeMismatch, VerifiedStream

DATA = b"0123456789" * 100


def stream(data: bytes = DATA, named: bytes = DATA, size: int | None = len(DATA)) -> VerifiedStream:
    return VerifiedStream(io.BytesIO(data), Digest.of(named), size, "blob of library/x")


def test_bytes_pass_unchanged() -> None:
    checked = stream()
    assert checked.read(7) + checked.read() == DATA
    assert checked.read(1) == b""
    assert checked.received == len(DATA)


def test_readinto_fills_a_buffer() -> None:
    checked, buffer = stream(), bytearray(600)
    assert [checked.readinto(buffer) for _ in range(3)] == [600, 400, 0]


def test_size_may_be_unknown() -> None:
    assert stream(size=None).read() == DATA


def test_finish_reads_the_rest() -> None:
    checked = stream()
    checked.read(1)
    checked.finish()
    checked.finish()
    assert checked.received == len(DATA)


@pytest.mark.parametrize("size", [None, len(DATA)])
def test_other_bytes(size: int | None) -> None:
    with pytest.raises(DigestMismatch, match="blob of library/x: expected sha256:"):
        stream(named=b"other", size=size).finish()


def test_fewer_bytes_are_an_error_at_the_end() -> None:
    checked = stream(DATA[:-1])
    assert checked.read(len(DATA)) == DATA[:-1]
    for _ in range(2):  # asking again does not help
        with pytest.raises(SizeMismatch, match="expected 1000 bytes, received 999"):
            checked.read(1)


def test_more_bytes_are_an_error_at_once() -> None:
    source = io.BytesIO(DATA + b"more" * 1000)
    checked = VerifiedStream(source, Digest.of(DATA), len(DATA), "blob")
    checked.read(len(DATA))
    with pytest.raises(SizeMismatch, match="expected 1000 bytes, received more"):
        checked.read(1)
    assert source.tell() == len(DATA) + 1


def test_empty() -> None:
    assert stream(b"", b"", 0).read() == b""
