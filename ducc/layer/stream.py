"""Bytes that are checked while they pass: a digest, and a size if one was announced.

Who reads such a stream to its end knows that the bytes were those that had been named. Before the end nothing is
known, so nothing that was read may become visible to others until `finish` has returned.
"""

import hashlib
from typing import Protocol

from ducc.errors import DuccError
from ducc.image.digest import Digest, DigestMismatch

READ_SIZE = 1 << 20


class Readable(Protocol):
    """Anything with `read`: a file, a response body, another stream of this folder."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes, and none only at the end."""
        ...


class SizeMismatch(DuccError):
    """More or fewer bytes arrived than were announced."""

    exit_code = 20
    retryable = True  # most often a truncated download

    def __init__(self, source: str, expected: int, received: int) -> None:
        found = "more" if received > expected else str(received)
        super().__init__(f"{source}: expected {expected} bytes, received {found}")
        self.source, self.expected, self.received = source, expected, received


class VerifiedStream:
    """*source*, unchanged; the read that finds its end raises unless it was *expected* and had *size* bytes.

    One byte more than *size* is an error at once: a peer that never stops is not read to its end.
    """

    def __init__(
        self,
        source: Readable,
        expected: Digest,
        size: int | None,
        name: str,
        mismatch: type[DigestMismatch] = DigestMismatch,
    ) -> None:
        self.expected, self.name = expected, name
        self.received = 0
        self._source, self._size, self._mismatch = source, size, mismatch
        self._hash = hashlib.sha256()
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """At most *size* bytes, all that are left if it is negative; none only after the check at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(READ_SIZE), b""))
        if size == 0 or self._ended:
            return b""
        data = self._source.read(size)
        if not data:
            self._verify()
            return data
        self._hash.update(data)
        self.received += len(data)
        if self._size is not None and self.received > self._size:
            raise SizeMismatch(self.name, self._size, self.received)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill *buffer* from its start; returns how many bytes, 0 only after the check at the end."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> None:
        """Read what is left and check the whole; may be called again."""
        while self.read(READ_SIZE):
            pass

    def _verify(self) -> None:
        if self._size is not None and self.received != self._size:
            raise SizeMismatch(self.name, self._size, self.received)
        actual = Digest(self._hash.hexdigest())
        if actual != self.expected:
            raise self._mismatch(self.name, self.expected, actual)
        self._ended = True
