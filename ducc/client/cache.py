"""The disk cache of a node: verified content, under the hash of the object that it came from.

    ab/cdef…     an object's content: uncompressed, whole, never changed; the name has no suffix
    ab/cdef….…   what is being written there; renamed to its final name when all of it is there
    lock         held by whoever is making room, and by whoever fetches what all want

Nobody owns the cache: any number of processes, for any number of repositories, share it, each may be killed at any
time, and every file may vanish at any time (a descriptor that is open stays good). There is no index that could be lost
or wrong: when a file was used is its access time, whether it is in use is a lock on it, and what it must hold is its
size and an extended attribute with its checksum. Each process compares that when it first uses a file, and once a day,
so what a disk or a power cut has damaged is thrown away and fetched again; nothing is synced. A file without the
attribute (its file system has none, or another program made it) is believed by its size.

When the disk takes nothing more, content is kept in memory instead, for as long as somebody holds it.
"""

import errno
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from itertools import count
from pathlib import Path
from threading import Lock, Thread

from deflate import crc32

from ducc.client.alone import Turns
from ducc.client.room import UNFINISHED, make_room, remove_abandoned
from ducc.storage.durable import spread_below

log = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 4 << 30
CHECKSUM = "user.ducc.crc32"  # the attribute: four bytes, the greatest first
_ACCESS_PRECISION_NS = 600 * 10**9  # how exactly the time of last use is kept
_BLOCK = 4096
_READ_AT_ONCE = 1 << 18  # that much stays in the processor's cache
_QUICK_BYTES = 1 << 18  # content up to this size is compared while others wait, if it is in memory
_MOST_REMEMBERED = 20_000  # objects that were compared; beyond, and after a day, they are compared again
_DAY_SECONDS = 24 * 3600


Held = bytes | bytearray


class NotAtOnce(Exception):
    """It seems to be here, but a disk has to be waited for."""


class Content:
    """The content of one object: an open file, or bytes for as long as no file has them.

    The file is closed when nobody holds it any more. *path* is where the cache keeps it; None: nowhere.
    """

    __slots__ = ("_data", "_descriptor", "_is_pinned", "path", "size")

    def __init__(self, size: int, data: Held | None = None, descriptor: int = -1, path: str | None = None) -> None:
        self.size, self.path = size, path
        self._data, self._descriptor = data, descriptor
        self._is_pinned = False

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @classmethod
    def in_memory(cls, data: Held) -> "Content":
        return cls(len(data), data)

    def become(self, descriptor: int, path: str) -> None:
        """Be the file *descriptor*, which holds the same; whoever is reading notices nothing."""
        self._descriptor, self.path = descriptor, path
        if self._is_pinned:
            self.pin()
        self._data = None

    def pin(self) -> None:
        """Let no process make room by dropping it while this one holds it, unless too much is pinned."""
        self._is_pinned = True
        if self._descriptor >= 0:
            with suppress(OSError):  # somebody is just deciding, or a file system without locks
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    @property
    def is_lent(self) -> bool:
        """Is it in memory although the cache has it? Then it is not to be held for long."""
        return self._descriptor < 0 and self.path is not None

    def in_hand(self, offset: int, size: int) -> memoryview | None:
        """A range, if it is in memory."""
        data = self._data
        return None if data is None else memoryview(data)[offset : offset + size]

    def read(self, offset: int, size: int) -> Held:
        """A range; fewer bytes where the file is shorter than it was."""
        data = self._data
        return os.pread(self._descriptor, size, offset) if data is None else data[offset : offset + size]

    def read_into(self, room: bytearray | memoryview, offset: int, flags: int = 0) -> int:
        """Read of a file, for which to wait the *flags* may forbid; return how much."""
        return os.preadv(self._descriptor, [room], offset, flags)

    def whole(self) -> Held:
        return self.read(0, self.size)

    def checksum_expected(self) -> bytes | None:
        """The checksum that the file must have; None if nothing tells."""
        try:
            return os.getxattr(self._descriptor, CHECKSUM)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            raise

    def read_ahead(self) -> None:
        """Have the kernel read all of the file soon."""
        if self._descriptor >= 0:
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


class Cache:
    """A cache in *directory*, which keeps itself below *limit_bytes*. Every method may be called by any thread."""

    def __init__(
        self, directory: Path, limit_bytes: int | None = DEFAULT_LIMIT_BYTES, preloaded: Sequence[Path] = ()
    ) -> None:
        """Without a limit nothing is ever dropped. What is in *preloaded* is used and never changed."""
        with suppress(OSError):  # what can't be written is said when something is to be added
            os.makedirs(directory, mode=0o700, exist_ok=True)
            spread_below(str(directory))  # a node makes thousands of files while its users wait
        self._root = str(directory)
        self._roots = (self._root, *map(str, preloaded))
        self.limit_bytes = limit_bytes
        self.used_bytes = 0  # as of the last look, plus what was added since by this process
        self._next_look = 0  # look again when so much is used
        self._looking = Lock()
        self._cleanups: deque[float] = deque(maxlen=1000)
        self._numbers = count()
        self.keeps = True  # did the disk take what was last to be kept?
        self._turns = Turns(f"{self._root}/lock")
        self._compared: set[bytes] = set()  # digests of files that were seen to be undamaged
        self._compared_since = time.monotonic()

    # --- what is here ------------------------------------------------------------------------

    def open(self, digest: bytes, size: int | None) -> Content | None:
        """The content of an object, if it is here, undamaged and of *size* bytes (None: not known).

        May have to wait for the disk.
        """
        for root in self._roots:
            content = self._find(root, digest, size)
            if content is None:
                continue
            if self.was_compared(digest) or _is_undamaged(content):
                self._remember(digest)
                return content
            log.warning("damaged in the cache, asking for it again: file=%s", content.path)
            self._discard(root, content)
        return None

    def open_at_once(self, digest: bytes, size: int | None) -> Content | None:
        """The same, but raises `NotAtOnce` if it seems to be here and a disk would have to be waited for."""
        content = self._find(self._root, digest, size)
        if content is None:
            if any(os.access(_path(root, digest), os.R_OK) for root in self._roots[1:]):
                raise NotAtOnce
            return None
        if self.was_compared(digest):
            return content
        lent = _compared_at_once(content)
        if lent is None:
            raise NotAtOnce
        self._remember(digest)
        return lent

    def has(self, digest: bytes) -> bool:
        """Is there a file of that name? It may be damaged."""
        return any(os.access(_path(root, digest), os.R_OK) for root in self._roots)

    def drop(self, digest: bytes) -> None:
        """Forget an object; whoever has it open keeps it."""
        with suppress(OSError):
            os.unlink(_path(self._root, digest))
        self._compared.discard(digest)

    def _find(self, root: str, digest: bytes, size: int | None) -> Content | None:
        path = _path(root, digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        status = os.fstat(descriptor)
        content = Content(status.st_size, descriptor=descriptor, path=path)
        if size is not None and status.st_size != size:
            self._discard(root, content)
            return None
        now = time.time_ns()
        if root == self._root and now - status.st_atime_ns > _ACCESS_PRECISION_NS:
            with suppress(OSError):
                os.utime(descriptor, ns=(now, status.st_mtime_ns))
        return content

    def _discard(self, root: str, content: Content) -> None:
        """A preloaded cache is not ours to change."""
        if root == self._root and content.path is not None:
            with suppress(OSError):
                os.unlink(content.path)

    def was_compared(self, digest: bytes) -> bool:
        """Was it seen to be here, undamaged, not long ago?"""
        return digest in self._compared

    def _remember(self, digest: bytes) -> None:
        now = time.monotonic()
        if len(self._compared) >= _MOST_REMEMBERED or now - self._compared_since > _DAY_SECONDS:
            self._compared, self._compared_since = set(), now
        self._compared.add(digest)

    # --- what comes --------------------------------------------------------------------------

    def alone(self, digest: bytes) -> AbstractContextManager[None]:
        """Within it nobody else on this node fetches the object; somebody may have done so before it was entered."""
        path = _path(self._root, digest)
        return self._turns.alone(digest, lambda: os.access(path, os.R_OK))

    def add(self, digest: bytes, data: bytes) -> Content:
        """Keep the verified content of an object, or at least hold it while the caller needs it."""
        content = Content.in_memory(data)
        self.keep(digest, data, content)
        return content

    def keep(self, digest: bytes, data: bytes, content: Content) -> None:
        """Let *content*, which is in memory, be a file of the cache from now on, if the disk takes it."""
        if self.limit_bytes is not None and len(data) > self.limit_bytes // 2:
            return
        try:
            self._write(digest, data, content)
        except OSError as error:
            if self.keeps:
                log.warning(
                    "cache takes nothing more, reading on without it: directory=%s reason=%s", self._root, error
                )
            self.keeps = False
            return
        self.keeps = True
        self._remember(digest)
        self.used_bytes += -(-len(data) // _BLOCK) * _BLOCK
        if self.used_bytes >= self._next_look and self._looking.acquire(blocking=False):
            Thread(target=self._look, name="cache-look", daemon=True).start()

    def _write(self, digest: bytes, data: bytes, content: Content) -> None:
        path = _path(self._root, digest)
        temporary = f"{path}{UNFINISHED}{os.getpid()}.{next(self._numbers)}.{time.time_ns()}"
        descriptor = _create(temporary)
        try:
            _write_all(descriptor, data)
            with suppress(OSError):  # a file system without attributes
                os.setxattr(descriptor, CHECKSUM, _checksum(data))
            os.rename(temporary, path)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(temporary)
            raise
        content.become(descriptor, path)

    # --- making room -------------------------------------------------------------------------

    def _look(self) -> None:
        """See how much is used, and make room where it is too much. Runs beside the readers, once at a time."""
        try:
            self.make_room()
        except OSError as error:
            log.warning("cache cannot be kept below its limit: directory=%s reason=%s", self._root, error)
        finally:
            self._looking.release()

    def cleanups_of_a_day(self) -> int:
        """How often this process has made room within the last 24 hours."""
        return sum(time.monotonic() - at < _DAY_SECONDS for at in self._cleanups)

    def make_room(self) -> None:
        """Remove what was left unfinished and, if less than a sixteenth is free, what was used least recently."""
        limit = self.limit_bytes if self.limit_bytes is not None else 1 << 62
        with open(f"{self._root}/lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_abandoned(self._root)
            self.used_bytes, was_made = make_room(self._root, limit)
        if was_made:
            self._cleanups.append(time.monotonic())
        self._next_look = self.used_bytes + limit // 16


def _path(root: str, digest: bytes) -> str:
    text = digest.hex()
    return f"{root}/{text[:2]}/{text[2:]}"


def _create(path: str) -> int:
    """A new file; somebody may have removed the whole cache while it was in use."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _checksum(data: bytes | bytearray) -> bytes:
    return int(crc32(data)).to_bytes(4, "big")


def _is_undamaged(content: Content) -> bool:
    try:
        expected = content.checksum_expected()
        return expected is None or _checksum_of(content) == expected
    except OSError:  # a disk that can't read what it has
        return False


def _compared_at_once(content: Content) -> Content | None:
    """The content in memory, if it is undamaged; None also if that can't be known without waiting."""
    if content.size > _QUICK_BYTES:
        return None
    try:
        expected, data = content.checksum_expected(), bytearray(content.size)
        read = content.read_into(data, 0, os.RWF_NOWAIT) if data else 0
    except OSError:
        return None
    if read != content.size or expected not in (None, _checksum(data)):
        return None
    return Content(read, data, path=content.path)


def _checksum_of(content: Content) -> bytes:
    checksum, offset, room = 0, 0, memoryview(bytearray(_READ_AT_ONCE))
    while size := content.read_into(room, offset):
        checksum = crc32(room[:size], checksum)
        offset += size
    return checksum.to_bytes(4, "big")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
