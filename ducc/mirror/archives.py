"""Layers as they came, for engines that unpack images themselves: blobs of an OCI layout that somebody keeps beside.

A file counts if its bytes are those that its name says. They are hashed before it is first handed out, and once more
after it has changed.
"""

import hashlib
import logging
import os
import stat
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ducc.image.digest import Digest

log = logging.getLogger(__name__)

_PIECE = 1 << 20


class Archive:
    """An open file with the bytes of one blob; closed when nobody holds it any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._status = os.fstat(descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def __len__(self) -> int:
        return self._status.st_size

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """Another value for another file, and for the same after a change."""
        status = self._status
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self._status.st_mode)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)


class Part(NamedTuple):
    """What to send of an archive: from *start* up to *end*."""

    archive: Archive
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def piece(self, sent: int) -> bytes:
        """The next bytes after those that were *sent*; none if the file has become shorter."""
        return self.archive.read(self.start + sent, min(_PIECE, len(self) - sent))


class Archives:
    """The blobs in `blobs/sha256` of *directory*; None: nobody keeps any. May be asked by any thread."""

    def __init__(self, directory: Path | None) -> None:
        self._blobs = directory and directory / "blobs" / "sha256"
        self._right: dict[Digest, tuple[int, int, int, int]] = {}
        self._one_at_a_time = Lock()

    def open(self, digest: Digest) -> Archive | None:
        """The blob, if it is kept and undamaged."""
        if self._blobs is None:
            return None
        try:
            archive = Archive(os.open(self._blobs / digest.hex, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
        except OSError:
            return None
        return archive if archive.is_regular and self._is_right(digest, archive) else None

    def _is_right(self, digest: Digest, archive: Archive) -> bool:
        with self._one_at_a_time:  # who comes meanwhile finds it done
            if self._right.get(digest) == archive.identity:
                return True
            if _digest(archive) != digest:
                log.warning(
                    "not handed out, its bytes are others: archive=%s", self._blobs and self._blobs / digest.hex
                )
                return False
            self._right[digest] = archive.identity
            return True


def _digest(archive: Archive) -> Digest:
    hashed, offset = hashlib.sha256(), 0
    while piece := archive.read(offset, _PIECE):
        hashed.update(piece)
        offset += len(piece)
    return Digest(hashed.hexdigest())
