"""The bytes of one blob as they arrive, over as many connections as it takes."""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ducc.errors import DuccError
from ducc.image.digest import Digest, DigestMismatch
from ducc.image.manifest import Descriptor
from ducc.transport import READ_SIZE, Body, Unreachable

log = logging.getLogger(__name__)

MAX_RESUMES = 8


class WrongLength(DuccError):
    """A blob has not as many bytes as its descriptor says."""

    exit_code = 20


@dataclass(frozen=True, slots=True)
class Part:
    """An answer that begins at the offset asked for (206), or at 0 (200). *name* says where it comes from.

    *arrived* is told each number of bytes, and may wait. *distrust* is set for a mirror: called when the whole is not
    the blob.
    """

    body: Body
    name: str
    arrived: Callable[[int], None]
    distrust: Callable[[], None] | None = None

    @property
    def validator(self) -> str:
        """What `If-Range` may name: a strong entity tag, or nothing."""
        tag = self.body.headers.get("ETag", "")
        return tag if tag.startswith('"') and tag.isascii() and tag.isprintable() and len(tag) < 200 else ""


@dataclass(frozen=True, slots=True)
class Opener:
    """How a blob is asked for from an offset on, given what `If-Range` may say to whom; and how to wait after a try."""

    open: Callable[[int, tuple[str, str]], Part]
    pause: Callable[[int], None]
    slot: AbstractContextManager[None]  # held while there is more to come


class BlobStream:
    """The bytes of one blob from an offset on, as they arrive. Its digest is not verified here; its length is.

    A read returns fewer bytes than asked for only at the end. The end is told only when exactly as many bytes as the
    descriptor says have come: a longer blob raises `WrongLength`, a shorter one `Unreachable` after some tries. If a
    mirror sent something else, that is found out here, and it is not asked for this blob again: `DigestMismatch`.
    """

    def __init__(self, opener: Opener, source: str, descriptor: Descriptor, offset: int = 0) -> None:
        self._opener, self._source, self._descriptor = opener, source, descriptor
        self._offset = offset
        self._breaks = 0
        self._at_end = False
        self._hash = hashlib.sha256() if offset == 0 else None
        self._distrusted: list[Callable[[], None]] = []
        self._validator = ("", "")
        with contextlib.ExitStack() as held:
            held.enter_context(opener.slot)
            self._part = self._open()
            held.callback(lambda: self._part.body.close())
            self._skip_what_is_known()
            self._held = held.pop_all()

    def read(self, size: int = READ_SIZE) -> bytes:
        """The next *size* bytes, fewer only at the end."""
        parts, missing = [], size
        while missing and (data := self._some(missing)):
            parts.append(data)
            missing -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill *buffer*; return how many bytes there are in it, fewer than it holds only at the end."""
        view, filled = memoryview(buffer), 0
        while filled < len(view) and (data := self._some(len(view) - filled)):
            view[filled : filled + len(data)] = data
            filled += len(data)
        return filled

    def close(self) -> None:
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _some(self, size: int) -> bytes:
        """The next bytes, at least one before the end."""
        while left := self._descriptor.size - self._offset:
            try:
                data = self._part.body.read1(min(size, READ_SIZE, left))
            except Unreachable as error:
                self._resume(str(error))
                continue
            if data:
                self._offset += len(data)
                if self._distrusted and self._hash is not None:
                    self._hash.update(data)
                self._part.arrived(len(data))
                return data
            self._resume(f"ends {left} bytes too early")
        self._expect_end()
        return b""

    def _expect_end(self) -> None:
        """Nothing may follow. A connection that breaks now breaks nothing: every byte is here."""
        if self._at_end:
            return
        with contextlib.suppress(Unreachable):
            if self._part.body.read1(1):
                raise WrongLength(f"{self._source}: longer than the {self._descriptor.size} bytes announced")
        self._at_end = True
        self.close()
        self._verify_mirrors()

    def _verify_mirrors(self) -> None:
        if not self._distrusted or self._hash is None:
            return
        actual = Digest(self._hash.hexdigest())
        if actual != self._descriptor.digest:
            for distrust in self._distrusted:
                distrust()
            raise DigestMismatch(f"{self._source}: from {self._part.name}", self._descriptor.digest, actual)

    def _resume(self, reason: str) -> None:
        """Ask again for what is missing, a bounded number of times."""
        while True:
            self._part.body.close()
            self._breaks += 1
            if self._breaks > MAX_RESUMES:
                raise Unreachable(f"{self._source}: given up after {MAX_RESUMES} resumptions: {reason}")
            log.info("blob resumed: source=%s offset=%d reason=%s", self._source, self._offset, reason)
            self._opener.pause(self._breaks)
            self._part = self._open()
            try:
                self._skip_what_is_known()
            except Unreachable as error:
                reason = str(error)
            else:
                return

    def _open(self) -> Part:
        part = self._opener.open(self._offset, self._validator)
        self._validator = (part.name, part.validator)
        if part.distrust is not None:
            self._follow_mirror(part.distrust)
        return part

    def _follow_mirror(self, distrust: Callable[[], None]) -> None:
        """From now on bytes are hashed; what came before from the registry itself, unhashed, is not held against it."""
        if self._offset and not self._distrusted:
            self._hash = None
        self._distrusted.append(distrust)

    def _skip_what_is_known(self) -> None:
        """A server that ignores ranges sends everything again."""
        known = self._offset if self._part.body.status == 200 else 0
        while known:
            data = self._part.body.read1(min(READ_SIZE, known))
            if not data:
                raise Unreachable(f"{self._source}: ends too early")
            known -= len(data)
