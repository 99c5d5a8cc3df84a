import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ducc.client.cache import Cache
from ducc.client.fetch import CorruptObject, Fetcher, Wanted
from ducc.cvmfs.compression import BadObject
from ducc.cvmfs.entry import STORED
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.storage.base import ObjectMissing, StoreUnavailable

CONTENT = b"what is in the file"
STORED_BYTES = zlib.compress(CONTENT)
NAME = ObjectName.of(STORED_BYTES)
WANTED = Wanted(NAME, len(CONTENT))


class Server:
    """Answers as told: by bytes, or by an error; the last answer is repeated."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked = Counter[ObjectName]()
        self.gate = threading.Event()
        self.gate.set()

    def get(self, name: ObjectName) -> bytes:
        self.asked[name] += 1
        assert self.gate.wait(60)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def read_file(self, name: str) -> bytes | None:
        raise NotImplementedError


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def fetch(server: Server, cache: Cache, wanted: Wanted = WANTED) -> bytes:
    fetcher = Fetcher(server, cache)
    try:
        content = fetcher.content(wanted)
        return bytes(content.whole())
    finally:
        fetcher.close()


def kept(cache_directory: Path) -> Iterator[Path]:
    return cache_directory.glob("??/*")


def test_what_was_fetched_once_is_not_asked_for_again(cache: Cache) -> None:
    server = Server(STORED_BYTES)
    assert [fetch(server, cache) for _ in range(3)] == [CONTENT] * 3
    assert server.asked == {NAME: 1}


def test_a_stored_object_is_not_inflated(cache: Cache) -> None:
    name = ObjectName.of(CONTENT, Suffix.CHUNK)
    assert fetch(Server(CONTENT), cache, Wanted(name, len(CONTENT), STORED)) == CONTENT


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        STORED_BYTES[:-1],
        STORED_BYTES + b"\0",
        bytes([STORED_BYTES[0] ^ 1]) + STORED_BYTES[1:],
        b"<html>log in</html>",
    ],
    ids=["empty", "truncated", "extra byte", "flipped bit", "web page"],
)
def test_damaged_bytes_are_refused_and_never_kept(
    damaged: bytes, cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(damaged)
    with pytest.raises(CorruptObject):
        fetch(server, cache)
    assert server.asked == {NAME: 2}
    assert not list(kept(tmp_path))


def test_bytes_damaged_once_are_asked_for_again(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    assert fetch(Server(b"damaged", STORED_BYTES), cache) == CONTENT


def test_content_of_another_length_than_the_catalog_says_is_refused(cache: Cache, tmp_path: Path) -> None:
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        with pytest.raises(BadObject):
            fetch(Server(STORED_BYTES), cache, Wanted(NAME, size))
    with pytest.raises(BadObject):
        fetch(Server(CONTENT), cache, Wanted(ObjectName.of(CONTENT), 1, STORED))
    assert not list(kept(tmp_path))


@pytest.mark.parametrize("error", [ObjectMissing("x"), StoreUnavailable("x")])
def test_the_stores_own_errors_come_through(error: Exception, cache: Cache) -> None:
    with pytest.raises(type(error)):
        fetch(Server(error), cache)
    assert fetch(Server(STORED_BYTES), cache) == CONTENT  # nothing is remembered against the object


def test_fifty_who_ask_at_once_cost_one_request(cache: Cache) -> None:
    server = Server(STORED_BYTES)
    server.gate.clear()
    fetcher = Fetcher(server, cache)
    futures = [fetcher.fetch(WANTED) for _ in range(50)]
    time.sleep(0.05)
    server.gate.set()
    assert {future.result(60).whole() for future in futures} == {CONTENT}
    assert server.asked == {NAME: 1}
    fetcher.close()


def test_a_failure_is_shared_by_those_who_waited_and_by_nobody_else(cache: Cache) -> None:
    server = Server(StoreUnavailable("gone"), STORED_BYTES)
    server.gate.clear()
    fetcher = Fetcher(server, cache)
    futures = [fetcher.fetch(WANTED) for _ in range(5)]
    server.gate.set()
    for future in futures:
        with pytest.raises(StoreUnavailable):
            future.result(60)
    assert fetcher.fetch(WANTED).result(60)
    fetcher.close()


@pytest.mark.parametrize("how", ["content", "fetch", "fetch_here"])
def test_what_can_not_be_kept_is_read_all_the_same_and_holds_nobody_up(
    how: str, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cache, "keep", fail)
    fetcher = Fetcher(Server(STORED_BYTES), cache)
    for _ in range(20):  # more than there are threads
        got = getattr(fetcher, how)(WANTED)
        assert (got.result(60) if how == "fetch" else got).whole() == CONTENT
        if rest := fetcher.rest():
            rest()
        while fetcher.coming(WANTED):
            time.sleep(0.001)
    fetcher.close()
    assert "not kept by a fault of this program" in caplog.text


def test_mounts_that_share_a_cache_ask_once_for_what_all_want(tmp_path: Path) -> None:
    server = Server(STORED_BYTES)
    server.gate.clear()
    fetchers = [Fetcher(server, Cache(tmp_path)) for _ in range(10)]  # as ten processes would have
    futures = [fetcher.fetch(WANTED) for fetcher in fetchers]
    time.sleep(0.05)
    server.gate.set()
    assert {future.result(60).whole() for future in futures} == {CONTENT}
    assert server.asked == {NAME: 1}
    for fetcher in fetchers:
        fetcher.close()
