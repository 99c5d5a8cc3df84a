"""Blobs on their way, kept on the publisher's disk until what was made of them is published.

So a byte of a blob is fetched once, even when the publisher is killed half-way: the next one reads what is here and
asks the registry for the rest. Nothing here is believed: what is read is verified like what is fetched.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ducc.image.digest import Digest
from ducc.storage.durable import write_uncached

KEPT_SECONDS = 7 * 24 * 3600  # a blob that nobody asked for in that time is dropped


class Remote(Protocol):
    """The rest of a blob, as the registry sends it."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Spool:
    """A directory of blobs, whole or begun, each under its digest. Any number of processes may share it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                    path.unlink()

    def open(self, digest: Digest, size: int, fetch: Callable[[int], Remote]) -> "SpooledBlob":
        """Read a blob of *size* bytes: what is here, then what *fetch*, given an offset, brings."""
        return SpooledBlob(self._directory / digest.hex, size, fetch)

    def forget(self, digests: Iterable[Digest]) -> None:
        """Drop blobs that are not needed any more."""
        for digest in digests:
            with suppress(FileNotFoundError):
                (self._directory / digest.hex).unlink()


class SpooledBlob:
    """One blob, read once from its start; what comes from the registry is kept on the way.

    *reused* says how many bytes were here. While another process holds the blob, it is fetched past the spool.
    """

    def __init__(self, path: Path, size: int, fetch: Callable[[int], Remote]) -> None:
        self._path, self._size, self._fetch = path, size, fetch
        self._file: int | None = _open_alone(path)
        self._known = self.reused = self._trusted_length()
        self._at = 0
        self._remote: Remote | None = None

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes, and none only at the end."""
        if self._file is not None and self._at < self._known:
            data = os.pread(self._file, min(size, self._known - self._at), self._at)
        elif self._at == self._size and self._remote is None:
            return b""  # all of it was here
        else:
            data = self._from_registry(size)
        self._at += len(data)
        return data

    def discard(self) -> None:
        """Keep nothing of this blob: it was not what it should be."""
        with suppress(FileNotFoundError):
            self._path.unlink()

    def close(self) -> None:
        """Let go of the blob; what has come of it stays."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _trusted_length(self) -> int:
        if self._file is None:
            return 0
        length = os.fstat(self._file).st_size
        if length > self._size:
            os.ftruncate(self._file, 0)
            return 0
        return length

    def _from_registry(self, size: int) -> bytes:
        if self._remote is None:
            self._remote = self._fetch(self._at)
        data = self._remote.read(size)
        self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        """Append to the file; a full disk costs the copy, not the conversion."""
        if self._file is None:
            return
        try:
            written = write_uncached(self._file, data, self._at)
        except OSError:
            written = -1
        if written != len(data):
            os.ftruncate(self._file, self._at)
            os.close(self._file)
            self._file = None


def _open_alone(path: Path) -> int | None:
    """Open or make the file, if no other process has it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
