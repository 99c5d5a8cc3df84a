import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ducc.client.cache import CHECKSUM, Cache, Content, NotAtOnce


def digest(number: int) -> bytes:
    return number.to_bytes(20, "big")


def read(content: Content | None) -> bytes | None:
    return None if content is None else bytes(content.whole())


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
    cache = Cache(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"in its place")
    contents = [cache.add(digest(number), b"content") for number in range(3)]
    assert [read(content) for content in contents] == [b"content"] * 3
    assert len(caplog.records) == 1  # said once, not for every object


def test_what_a_killed_process_was_writing_is_never_seen_and_removed_in_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    whole = cache.add(digest(1), b"content").path
    assert whole is not None
    fresh, dead = (Path(f"{whole}.{name}") for name in ("fresh", "dead"))
    for path in (fresh, dead):
        path.write_bytes(b"half a")
    os.utime(dead, (0, time.time() - 120))
    cache.make_room()
    assert fresh.exists()
    assert not dead.exists()
    assert cache.used_bytes == 4096


def test_it_makes_room_by_dropping_what_was_used_least_recently(tmp_path: Path) -> None:
    roomy = Cache(tmp_path)
    now = time.time()
    for number in range(64):
        path = roomy.add(digest(number), bytes(4096)).path
        assert path is not None
        os.utime(path, (now - 10_000 + 60 * number, now - 20_000))
    settled(roomy).open(digest(0), None)  # the oldest is used again
    cache = Cache(tmp_path, limit_bytes=64 * 4096)
    cache.make_room()
    kept = {number for number in range(64) if cache.open(digest(number), None)}
    assert kept == {0, *range(33, 64)}  # down to half of the limit


def test_what_was_used_last_in_the_same_minute_goes_only_as_far_as_needed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=64 * 4096)
    cache._next_look = 1 << 62
    for number in range(64):
        cache.add(digest(number), bytes(4096))
    cache.make_room()
    assert sum(cache.has(digest(number)) for number in range(64)) == 32


def test_without_a_limit_nothing_is_dropped(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=None)
    for number in range(64):
        cache.add(digest(number), bytes(4096))
    settled(cache).make_room()
    assert all(cache.has(digest(number)) for number in range(64))


def test_what_is_pinned_by_any_process_stays_as_long_as_its_holder(tmp_path: Path) -> None:
    cache, other = Cache(tmp_path, limit_bytes=64 * 4096), Cache(tmp_path)
    for number in range(64):
        path = other.add(digest(number), bytes(4096)).path
        assert path is not None
        os.utime(path, (time.time() - 10_000 + 60 * number,) * 2)
    settled(other)
    pinned = [content for number in range(5) if (content := other._find(str(tmp_path), digest(number), None))]
    for content in pinned:
        content.pin()
        assert content.path is not None
        os.utime(content.path, (time.time() - 20_000,) * 2)
    cache.make_room()
    assert [cache.has(digest(number)) for number in range(6)] == [True] * 5 + [False]
    del pinned, content
    for number in range(64, 96):
        cache.add(digest(number), bytes(4096))
    settled(cache).make_room()
    assert not cache.has(digest(0))


def test_pins_give_way_when_they_hold_three_quarters_of_what_is_to_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=64 * 4096)
    cache._next_look = 1 << 62
    contents = [cache.add(digest(number), bytes(4096)) for number in range(64)]
    for content in contents:
        content.pin()
    cache.make_room()
    assert sum(cache.has(digest(number)) for number in range(64)) == 32
    assert read(contents[0]) == bytes(4096)  # whoever has it open goes on


def test_content_greater_than_half_the_limit_is_passed_through(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=8192)
    assert read(cache.add(digest(1), bytes(5000))) == bytes(5000)
    assert not cache.has(digest(1))


def test_it_stays_below_its_limit_by_itself(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=64 * 4096)
    for number in range(300):
        cache.add(digest(number), bytes(4096))
        settled(cache)
        assert sum(path.stat().st_blocks * 512 for path in tmp_path.glob("??/*")) <= (cache.limit_bytes or 0)
    assert cache.open(digest(299), 4096)


def test_a_cache_that_is_full_from_before_is_noticed(tmp_path: Path) -> None:
    for number in range(64):
        Cache(tmp_path, limit_bytes=1 << 30).add(digest(number), bytes(4096))
    cache = Cache(tmp_path, limit_bytes=16 * 4096)
    cache.add(digest(100), bytes(4096))
    settled(cache)
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.glob("??/*")) <= (cache.limit_bytes or 0)


# --- damage --------------------------------------------------------------------------------


def flip_a_bit(path: str, at: int = 3) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("size", [10, 4096, (1 << 18) + 1, (3 << 20) + 7], ids=str)
@pytest.mark.parametrize("ask", ["open", "open_at_once"])
def test_a_flipped_bit_is_noticed_by_the_next_process(
    size: int, ask: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Cache(tmp_path).add(digest(1), os.urandom(size)).path
    assert path is not None
    after_restart = Cache(tmp_path)
    assert read(after_restart.open(digest(1), size))
    flip_a_bit(path, size - 1)
    after_restart = Cache(tmp_path)
    with suppress(NotAtOnce):
        assert getattr(after_restart, ask)(digest(1), size) is None
    assert after_restart.open(digest(1), size) is None
    assert not os.path.exists(path)


def test_a_flipped_bit_is_noticed_within_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    path = cache.add(digest(1), b"content").path
    assert path is not None
    flip_a_bit(path)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 25 * 3600)
    cache.add(digest(2), b"other")
    assert cache.open(digest(1), 7) is None


def test_a_file_without_a_checksum_is_believed_by_its_size(tmp_path: Path) -> None:
    path = Cache(tmp_path).add(digest(1), b"content").path
    assert path is not None
    os.removexattr(path, CHECKSUM)
    assert read(Cache(tmp_path).open(digest(1), 7)) == b"content"
    assert Cache(tmp_path).open(digest(1), 8) is None


def test_small_content_in_memory_is_answered_at_once(tmp_path: Path) -> None:
    Cache(tmp_path).add(digest(1), b"content")
    assert read(Cache(tmp_path).open_at_once(digest(1), 7)) == b"content"


# --- other places and other processes --------------------------------------------------------


def test_a_cache_that_was_deleted_in_use_is_made_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    settled(cache).add(digest(1), b"content")
    settled(cache)
    shutil.rmtree(tmp_path / "cache")
    assert cache.open(digest(1), 7) is None
    cache.add(digest(1), b"content")
    assert read(Cache(tmp_path / "cache").open(digest(1), 7)) == b"content"


def test_a_preloaded_cache_is_used_and_never_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Cache(tmp_path / "preloaded").add(digest(1), b"content")
    damaged = Cache(tmp_path / "preloaded").add(digest(2), b"damaged").path
    assert damaged is not None
    flip_a_bit(damaged)
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "preloaded").rglob("*"))
    cache = Cache(tmp_path / "own", preloaded=[tmp_path / "preloaded"])
    assert read(cache.open(digest(1), 7)) == b"content"
    assert cache.has(digest(2))
    assert cache.open(digest(2), 7) is None
    cache.add(digest(2), b"correct")
    assert read(cache.open(digest(2), 7)) == b"correct"
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "preloaded").rglob("*")) == before
    assert len(list((tmp_path / "own").glob("??/*"))) == 1


def test_room_is_made_while_somebody_removes_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = settled(Cache(tmp_path))
    cache.add(digest(1), b"content")
    cache.add(bytes([1] * 20), b"content")
    scan = os.scandir

    def removing(path: str) -> Iterator["os.DirEntry[str]"]:
        if path != str(tmp_path):
            return scan(path)
        found = [entry for entry in scan(path) if entry.is_dir()]
        for entry in found:
            shutil.rmtree(entry.path)
        return iter(found)

    monkeypatch.setattr(os, "scandir", removing)
    cache.make_room()
    assert cache.used_bytes == 0


def test_one_after_the_other_fetches_the_same_object_and_others_pass(tmp_path: Path) -> None:
    one, other = Cache(tmp_path), Cache(tmp_path)  # as two processes would have
    entered = threading.Event()

    def fetch_it_too() -> None:
        with other.alone(digest(1)):
            assert read(other.open(digest(1), 7)) == b"content"
            entered.set()

    with one.alone(digest(1)):
        thread = threading.Thread(target=fetch_it_too)
        thread.start()
        assert not entered.wait(0.1)
        with other.alone(digest(2)):
            pass
        one.add(digest(1), b"content")
    assert entered.wait(60)
    thread.join()


def test_who_waits_for_a_stopped_process_goes_on_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ducc.client.alone.LONGEST_WAIT_SECONDS", 0.05)
    with Cache(tmp_path).alone(digest(1)):
        began = time.monotonic()
        with Cache(tmp_path).alone(digest(1)):
            assert 0.05 <= time.monotonic() - began < 60


def test_who_fetched_and_died_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ducc.client.alone.LONGEST_WAIT_SECONDS", 600)
    child = os.fork()
    if child == 0:
        Cache(tmp_path).alone(digest(1)).__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    began = time.monotonic()
    with Cache(tmp_path).alone(digest(1)):
        assert time.monotonic() - began < 60


def test_killed_at_any_instant_it_leaves_only_whole_files(tmp_path: Path) -> None:
    data = {number: bytes([number]) * (number * 700) for number in range(1, 200)}
    for milliseconds in (1, 3, 8, 20):
        child = os.fork()
        if child == 0:
            cache = Cache(tmp_path)
            while True:
                for number, content in data.items():
                    cache.add(digest(number), content)
        time.sleep(milliseconds / 1000)
        os.kill(child, 9)
        os.waitpid(child, 0)
        for number, content in data.items():
            assert read(Cache(tmp_path).open(digest(number), None)) in (None, content)
