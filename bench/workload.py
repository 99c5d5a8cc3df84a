"""What is done to a directory to see how fast it is: `python -m bench.workload KIND DIRECTORY TIMES`.

It prints, for each time, the number of operations, the bytes that were read, and the seconds that both took, as JSON.
The search for files is no part of the time.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from mmap import mmap
from random import Random
from stat import S_ISREG
from typing import NamedTuple

SMALL_BYTES = 64 * 1024
LARGE_BYTES = 1 << 20
MOST_FILES = 4000
READERS, MANY_SECONDS = 64, 3.0
MOST_BULK_BYTES = 200_000_000


class Used(NamedTuple):
    """What was done, and how long it took."""

    operations: int
    bytes: int
    seconds: float


def walk(top: str) -> Used:
    """List every directory and ask for the attributes of every entry."""
    started = time.perf_counter()
    found, pending = 0, [top]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                found += 1
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return Used(found, 0, time.perf_counter() - started)


def look_up(top: str) -> Used:
    """Ask for the attributes of files by their whole path."""
    files = _files(top, 0, 1 << 62)[:MOST_FILES]
    return _timed(files, _stat)


def open_(top: str) -> Used:
    files = _files(top, 1, SMALL_BYTES)[:MOST_FILES]
    return _timed(files, _open)


def small(top: str) -> Used:
    files = _files(top, 1, SMALL_BYTES)[:MOST_FILES]
    return _timed(files, _read)


def bulk(top: str) -> Used:
    files, size = [], 0
    for path in _largest_first(top):
        size += os.path.getsize(path)
        files.append(path)
        if size > MOST_BULK_BYTES:
            break
    return _timed(files, _read)


def many(top: str) -> Used:
    """Let readers read at random past the page cache; the slowest one's work is taken for everybody's."""
    descriptor = os.open(_largest_first(top)[0], os.O_RDONLY | os.O_DIRECT)
    places = os.fstat(descriptor).st_size // SMALL_BYTES
    started = time.perf_counter()

    def read(seed: int) -> int:
        room, numbers, done = mmap(-1, SMALL_BYTES), Random(seed), 0
        while time.perf_counter() < started + MANY_SECONDS:
            os.preadv(descriptor, [room], numbers.randrange(places) * SMALL_BYTES)
            done += 1
        return done

    with ThreadPoolExecutor(READERS) as readers:
        slowest = min(readers.map(read, range(READERS)))
    os.close(descriptor)
    return Used(slowest * READERS, slowest * READERS * SMALL_BYTES, time.perf_counter() - started)


KINDS: dict[str, Callable[[str], Used]] = {
    "walk": walk, "stat": look_up, "open": open_, "small": small, "bulk": bulk, "many": many,
}  # fmt: skip


def _largest_first(top: str) -> list[str]:
    return sorted(_files(top, LARGE_BYTES, 1 << 40), key=os.path.getsize, reverse=True)


@cache
def _files(top: str, least: int, most: int) -> list[str]:
    return list(_found(top, least, most))


def _found(top: str, least: int, most: int) -> Iterator[str]:
    for directory, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            path = f"{directory}/{name}"
            status = os.lstat(path)
            if S_ISREG(status.st_mode) and least <= status.st_size <= most:
                yield path


def _timed(files: list[str], use: Callable[[str], int]) -> Used:
    started = time.perf_counter()
    size = sum(map(use, files))
    return Used(len(files), size, time.perf_counter() - started)


def _stat(path: str) -> int:
    os.lstat(path)
    return 0


def _open(path: str) -> int:
    os.close(os.open(path, os.O_RDONLY))
    return 0


_ROOM = bytearray(LARGE_BYTES)  # new memory for each piece would take longer than the reading


def _read(path: str) -> int:
    descriptor, size = os.open(path, os.O_RDONLY), 0
    while piece := os.readv(descriptor, [_ROOM]):
        size += piece
    os.close(descriptor)
    return size


def main() -> None:
    kind, top, times = sys.argv[1:]
    os.chdir(top)  # the way to it is not what is measured
    print(json.dumps([KINDS[kind](".")._asdict() for _ in range(int(times))]))


if __name__ == "__main__":
    main()
