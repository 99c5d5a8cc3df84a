"""The spool: what has come of a blob is read from the disk, the rest is asked for, and nothing of it is believed."""

import io
import os
import time
from pathlib import Path

import pytest

from ducc.convert.spool import KEPT_SECONDS, Spool, SpooledBlob
from ducc.image.digest import Digest

DATA = os.urandom(10_000)
DIGEST = Digest.of(DATA)


class Server:
    """Sends DATA from any offset, and notes from which; breaks off after *most* bytes."""

    def __init__(self, most: int = len(DATA)) -> None:
        self.offsets: list[int] = []
        self._most = most

    def fetch(self, offset: int) -> io.BytesIO:
        self.offsets.append(offset)
        return Breaking(DATA[offset:], self._most)


class Breaking(io.BytesIO):
    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._left = most

    def read(self, size: int = -1) -> bytes:
        data = super().read(min(size, self._left))
        if size and not data and self._left == 0 and self.tell() < len(self.getvalue()):
            raise ConnectionError
        self._left -= len(data)
        return data


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "blobs")


def read_all(blob: SpooledBlob, piece: int = 1000) -> bytes:
    return b"".join(iter(lambda: blob.read(piece), b""))


def test_a_blob_passes_unchanged_and_is_kept(spool: Spool) -> None:
    server = Server()
    with spool.open(DIGEST, len(DATA), server.fetch) as blob:
        assert read_all(blob) == DATA
    with spool.open(DIGEST, len(DATA), server.fetch) as blob:
        assert read_all(blob) == DATA
        assert blob.reused == len(DATA)
    assert server.offsets == [0]


def test_what_came_before_a_break_is_not_asked_for_again(spool: Spool) -> None:
    with spool.open(DIGEST, len(DATA), Server(most=4_000).fetch) as blob, pytest.raises(ConnectionError):
        read_all(blob)
    server = Server()
    with spool.open(DIGEST, len(DATA), server.fetch) as blob:
        assert read_all(blob) == DATA
    assert server.offsets == [4_000]


def test_a_discarded_blob_is_fetched_from_its_start(spool: Spool) -> None:
    with spool.open(DIGEST, len(DATA), Server().fetch) as blob:
        read_all(blob)
        blob.discard()
    server = Server()
    with spool.open(DIGEST, len(DATA), server.fetch) as blob:
        assert read_all(blob) == DATA
        assert blob.reused == 0
    assert server.offsets == [0]


def test_two_readers_of_one_blob_do_not_mix(spool: Spool) -> None:
    server = Server()
    with spool.open(DIGEST, len(DATA), server.fetch) as one, spool.open(DIGEST, len(DATA), server.fetch) as other:
        assert read_all(one, 700) == DATA
        assert read_all(other, 900) == DATA
    assert server.offsets == [0, 0]


def test_a_file_longer_than_the_blob_is_not_used(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "blobs" / DIGEST.hex).write_bytes(DATA + b"more")
    with spool.open(DIGEST, len(DATA), Server().fetch) as blob:
        assert blob.reused == 0
        assert read_all(blob) == DATA


def test_forgotten_blobs_are_gone(spool: Spool, tmp_path: Path) -> None:
    with spool.open(DIGEST, len(DATA), Server().fetch) as blob:
        read_all(blob)
    spool.forget([DIGEST, Digest.of(b"never seen")])
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_blob_that_nobody_asked_for_in_a_week_is_dropped(spool: Spool, tmp_path: Path) -> None:
    with spool.open(DIGEST, len(DATA), Server().fetch) as blob:
        read_all(blob)
    long_ago = time.time() - KEPT_SECONDS - 60
    os.utime(tmp_path / "blobs" / DIGEST.hex, (long_ago, long_ago))
    Spool(tmp_path / "blobs")
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_spool_that_can_not_be_written_costs_nothing_but_the_copy(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "blobs")
    (tmp_path / "blobs" / DIGEST.hex).mkdir()
    with spool.open(DIGEST, len(DATA), Server().fetch) as blob:
        assert read_all(blob) == DATA
