"""The disk cache: verified content, under the hash of the object that it came from.

    ab/cdef…     an object's content: uncompressed, whole, never changed; the name has no suffix
    txn/…        what is being written; renamed to its final name when all of it is there
    lock         held by whoever is making room

Nobody owns the cache: any number of processes share it, each may be killed at any time, and every file may vanish at
any time (a descriptor that is open stays good). Nothing is synced: a file that a power cut left too short is told by
its size, thrown away and fetched again. When the disk takes nothing more, content is kept in memory instead, for as
long as somebody holds it.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

log = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 4 << 30
_ACCESS_PRECISION_SECONDS = 600  # how exactly the time of last use is kept
_ABANDONED_SECONDS = 3600  # a file in txn/ this old was left by a killed process


class Content:
    """An open file with the content of one object, or a stand-in in memory; closed when nobody holds it any more."""

    __slots__ = ("descriptor", "path")

    def __init__(self, descriptor: int, path: str | None) -> None:
        """*path* is where the cache keeps it; None: nowhere."""
        self.descriptor, self.path = descriptor, path

    def __del__(self) -> None:
        os.close(self.descriptor)


class _Kept(NamedTuple):
    """A file of the cache. Sorts by the time of its last use."""

    used_at: float
    size: int
    path: str


class Cache:
    """A cache in *directory*, which keeps itself below *limit_bytes*. Every method may be called by any thread."""

    def __init__(self, directory: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory / "txn").mkdir(exist_ok=True)
        self._root = str(directory)
        self.limit_bytes = limit_bytes
        self.used_bytes = 0  # as of the last look, plus what was added since by this process
        self._next_look = 0  # look again when so much is used
        self._looking = Lock()
        self._numbers = count()
        self._keeps = True

    def open(self, digest: bytes, size: int | None) -> Content | None:
        """The content of an object, if it is here and has *size* bytes (None: not known)."""
        path = self._path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        content = Content(descriptor, path)
        status = os.fstat(descriptor)
        if size is not None and status.st_size != size:
            with suppress(OSError):
                os.unlink(path)
            return None
        if time.time() - status.st_atime > _ACCESS_PRECISION_SECONDS:
            with suppress(OSError):
                os.utime(descriptor)
        return content

    def add(self, digest: bytes, data: bytes) -> Content:
        """Keep the verified content of an object, or at least hold it while the caller needs it."""
        try:
            content = self._write(digest, data)
        except OSError as error:
            if self._keeps:
                log.warning(
                    "cache takes nothing more, reading on without it: directory=%s reason=%s", self._root, error
                )
            self._keeps = False
            return _in_memory(data)
        self._keeps = True
        self.used_bytes += len(data)
        if self.used_bytes >= self._next_look and self._looking.acquire(blocking=False):
            Thread(target=self._look, name="cache-look", daemon=True).start()
        return content

    def _write(self, digest: bytes, data: bytes) -> Content:
        temporary = f"{self._root}/txn/{os.getpid()}.{next(self._numbers)}.{time.time_ns()}"
        path = self._path(digest)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        content = Content(descriptor, path)
        try:
            _write_all(descriptor, data)
            self._rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        return content

    def _rename(self, temporary: str, path: str) -> None:
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.rename(temporary, path)

    def _path(self, digest: bytes) -> str:
        text = digest.hex()
        return f"{self._root}/{text[:2]}/{text[2:]}"

    # --- making room -------------------------------------------------------------------------

    def _look(self) -> None:
        """See how much is used, and make room where it is too much. Runs beside the readers, once at a time."""
        try:
            self.make_room()
        except OSError as error:
            log.warning("cache cannot be kept below its limit: directory=%s reason=%s", self._root, error)
        finally:
            self._looking.release()

    def make_room(self) -> None:
        """Remove what was left unfinished and, if less than a sixteenth is free, what was used least recently."""
        step = self.limit_bytes // 16
        with open(f"{self._root}/lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._remove_abandoned()
            kept = sorted(self._kept())
            used = sum(one.size for one in kept)
            if used > self.limit_bytes - step:
                used = _evict(kept, used, self.limit_bytes * 3 // 4)
        self.used_bytes = used
        self._next_look = used + step

    def _kept(self) -> Iterator[_Kept]:
        for directory in os.scandir(self._root):
            if len(directory.name) != 2:
                continue
            for file in os.scandir(directory.path):
                with suppress(FileNotFoundError):
                    status = file.stat(follow_symlinks=False)
                    yield _Kept(max(status.st_atime, status.st_mtime), status.st_blocks * 512, file.path)

    def _remove_abandoned(self) -> None:
        for file in os.scandir(f"{self._root}/txn"):
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > _ABANDONED_SECONDS:
                    os.unlink(file.path)


def _evict(kept: list[_Kept], used: int, goal: int) -> int:
    """Remove the first of *kept* until *goal* is reached; return what is then used."""
    removed = 0
    for one in kept:
        if used <= goal:
            break
        with suppress(FileNotFoundError):
            os.unlink(one.path)
        used -= one.size
        removed += 1
    log.info("cache made room: files=%d used=%d", removed, used)
    return used


def _in_memory(data: bytes) -> Content:
    content = Content(os.memfd_create("ducc-uncached", os.MFD_CLOEXEC), None)
    _write_all(content.descriptor, data)
    return content


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
