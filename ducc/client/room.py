"""Making room in the disk cache: which files have not been used for the longest time, and may go.

The files are walked more than once, so that little is remembered however many there are: first to learn how much was
last used in which minute, then to remove what is older than the minute that has to go in part. A file that somebody has
pinned, by a lock that ends with its holder, stays, unless pins hold too much.
"""

import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

log = logging.getLogger(__name__)

_MINUTE_SECONDS = 60
UNFINISHED = "."  # in the name of a file that is being written
_YOUNGEST_ABANDONED_SECONDS = 60  # none takes that long unless its writer was killed, or stopped
_OBJECT_DIRECTORY = 2  # length of its name


class _Kept(NamedTuple):
    """A file of the cache, and the minute in which it was used last."""

    minute: int
    size: int
    path: str


class Room(NamedTuple):
    """How many bytes are used, and were something removed."""

    used_bytes: int
    was_made: bool


def make_room(root: str, limit_bytes: int) -> Room:
    """If less than a sixteenth of the limit is free, remove until half is used.

    To be called by one process at a time.
    """
    by_minute = Counter[int]()
    for one in _kept(root):
        by_minute[one.minute] += one.size
    used = by_minute.total()
    if used <= limit_bytes - limit_bytes // 16:
        return Room(used, False)
    goal = limit_bytes // 2
    return Room(used - _evict(root, used - goal, _last_to_go(by_minute, used - goal), goal * 3 // 4), True)


def remove_abandoned(root: str) -> None:
    """Remove what nobody is writing any more: its writer was killed."""
    for file in _files(root):
        with suppress(OSError):
            if UNFINISHED in file.name and time.time() - file.stat().st_mtime > _YOUNGEST_ABANDONED_SECONDS:
                os.unlink(file.path)


def is_held(path: str) -> bool:
    """Does anybody, in any process, hold a lock on the file?"""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _kept(root: str) -> Iterator[_Kept]:
    for file in _files(root):
        with suppress(FileNotFoundError):
            if UNFINISHED not in file.name:
                status = file.stat(follow_symlinks=False)
                used_at = max(status.st_atime, status.st_mtime)
                yield _Kept(int(used_at) // _MINUTE_SECONDS, status.st_blocks * 512, file.path)


def _files(root: str) -> Iterator["os.DirEntry[str]"]:
    """What is kept or being written; somebody may remove all of it at any time."""
    for directory in os.scandir(root):
        if len(directory.name) == _OBJECT_DIRECTORY:
            with suppress(FileNotFoundError):
                yield from os.scandir(directory.path)


def _last_to_go(by_minute: Counter[int], excess: int) -> int:
    """The minute up to which files have to go until *excess* bytes are gone."""
    gone = 0
    for minute in sorted(by_minute):
        gone += by_minute[minute]
        if gone >= excess:
            return minute
    return 0


def _evict(root: str, excess: int, last_minute: int, most_pinned: int) -> int:
    """Remove what was last used before *last_minute*, then of that minute what is needed; return how much went."""
    gone = pinned = removed = 0
    for in_last in (False, True):
        for one in _kept(root):
            if gone >= excess:
                break
            if one.minute > last_minute or (one.minute == last_minute) != in_last:
                continue
            with suppress(OSError):
                if is_held(one.path) and pinned + one.size <= most_pinned:
                    pinned += one.size
                    continue
                os.unlink(one.path)
                gone += one.size
                removed += 1
    log.info("cache made room: files=%d bytes=%d pinned=%d", removed, gone, pinned)
    return gone
