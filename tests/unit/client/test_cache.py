import os
import shutil
import time
from pathlib import Path

import pytest

from ducc.client.cache import Cache, Content


def digest(number: int) -> bytes:
    return number.to_bytes(20, "big")


def read(content: Content | None) -> bytes | None:
    return None if content is None else os.pread(content.descriptor, 1 << 20, 0)


def settled(cache: Cache) -> Cache:
    """The cache, with nothing going on in the background."""
    while cache._looking.locked():
        time.sleep(0.001)
    return cache


def test_content_lies_uncompressed_under_the_hash_of_its_object(tmp_path: Path) -> None:
    Cache(tmp_path).add(bytes.fromhex("ab" + "cd" * 19), b"content")
    assert (tmp_path / "ab" / ("cd" * 19)).read_bytes() == b"content"


def test_what_one_process_keeps_another_finds(tmp_path: Path) -> None:
    one, other = Cache(tmp_path), Cache(tmp_path)
    assert other.open(digest(1), None) is None
    assert read(one.add(digest(1), b"content")) == b"content"
    assert read(other.open(digest(1), 7)) == b"content"


def test_a_file_that_a_power_cut_left_too_short_is_thrown_away(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = cache.add(digest(1), b"content").path
    assert path is not None
    os.truncate(path, 3)
    assert cache.open(digest(1), 7) is None
    assert not os.path.exists(path)


def test_open_content_outlives_its_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    content = cache.add(digest(1), b"content")
    settled(cache)
    shutil.rmtree(tmp_path)
    assert read(content) == b"content"


def test_a_descriptor_is_closed_with_its_last_holder(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    contents = [cache.add(digest(number), b"x") for number in range(20)]
    assert len(os.listdir("/proc/self/fd")) >= before + 20
    del contents
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_when_the_disk_takes_nothing_content_is_held_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    shutil.rmtree(tmp_path)
    contents = [cache.add(digest(number), b"content") for number in range(3)]
    assert [read(content) for content in contents] == [b"content"] * 3
    assert len(caplog.records) == 1  # said once, not for every object


def test_what_a_killed_process_was_writing_is_never_seen_and_removed_in_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    fresh, old = tmp_path / "txn" / "fresh", tmp_path / "txn" / "old"
    fresh.write_bytes(b"half a")
    old.write_bytes(b"half a")
    os.utime(old, (0, time.time() - 2 * 3600))
    cache.make_room()
    assert fresh.exists()  # its writer may live
    assert not old.exists()


def test_it_makes_room_by_dropping_what_was_used_least_recently(tmp_path: Path) -> None:
    roomy = Cache(tmp_path)
    now = time.time()
    for number in range(64):
        path = roomy.add(digest(number), bytes(4096)).path
        assert path is not None
        os.utime(path, (now - 10_000 + number, now - 20_000))
    settled(roomy).open(digest(0), None)  # the oldest is used again
    cache = Cache(tmp_path, limit_bytes=64 * 4096)
    cache.make_room()
    kept = {number for number in range(64) if cache.open(digest(number), None)}
    assert 0 in kept
    assert kept - {0} == set(range(64 - len(kept) + 1, 64))
    assert 40 <= len(kept) <= 48


def test_it_stays_below_its_limit_by_itself(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=64 * 4096)
    for number in range(300):
        cache.add(digest(number), bytes(4096))
        settled(cache)
        assert sum(path.stat().st_blocks * 512 for path in tmp_path.glob("??/*")) <= cache.limit_bytes
    assert cache.open(digest(299), 4096)


def test_a_cache_that_is_full_from_before_is_noticed(tmp_path: Path) -> None:
    for number in range(64):
        Cache(tmp_path, limit_bytes=1 << 30).add(digest(number), bytes(4096))
    cache = Cache(tmp_path, limit_bytes=16 * 4096)
    cache.add(digest(100), bytes(4096))
    settled(cache)
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.glob("??/*")) <= cache.limit_bytes
