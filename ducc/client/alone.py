"""One process of this node at a time fetches an object, for all that share a cache.

A byte of one file stands for each object, and a lock on that byte for whoever is fetching it. The kernel drops the lock
with its holder, however that ends, so there is nothing to clean up. It saves requests and guards nothing: whoever has
waited long enough, or can't lock, goes on without.
"""

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LONGEST_WAIT_SECONDS = 10.0  # for a holder who was stopped, or whose server is slow
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.05


class Turns:
    """Locks in the file *path*. Threads that share one of these do not exclude each other."""

    def __init__(self, path: str) -> None:
        self._descriptor: int | None = None
        with suppress(OSError):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @contextmanager
    def alone(self, digest: bytes, arrived: Callable[[], bool]) -> Iterator[None]:
        """Be the only one who fetches the object, or wait until it has *arrived* or the other has given up."""
        pause, deadline = _FIRST_PAUSE_SECONDS, time.monotonic() + LONGEST_WAIT_SECONDS
        while not (held := self._lock(digest, fcntl.F_WRLCK)) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            if arrived():
                break
        try:
            yield
        finally:
            if held:
                self._lock(digest, fcntl.F_UNLCK)

    def _lock(self, digest: bytes, kind: int) -> bool:
        """True if it was done, or can't be done at all; False if somebody else holds the lock."""
        if self._descriptor is None:
            return True
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, int.from_bytes(digest[-7:], "big"), 1, 0)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return True
        return True
