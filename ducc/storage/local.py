"""A store in a local directory: `DIR/<fqrn>/` with root files, `data/00` … `data/ff`, and `data/txn` for what is new.

Objects are written into the session's directory below `data/txn`. `flush` syncs the file system once for all of them
(twenty times faster than one by one), renames them to their final names in the order of the puts, and syncs again. So
neither a killed process nor a power cut leaves a final name with bytes that are not its own: what is under a final
name was durable before it got the name. Sessions of killed processes are recognised by their lost lock, and removed.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock

from ducc.cvmfs.objectname import ObjectName
from ducc.storage.base import MANIFEST, REFLOG, Claimed, HeadMoved, ObjectMissing
from ducc.storage.durable import (
    locked,
    make_directory,
    read_regular,
    regular_size,
    replace_durably,
    spread_below,
    store_errors,
    sync_file_system,
    try_lock,
    write_new,
)

_SESSION = "session-"
_LONGEST_HOLDER = 100  # bytes of what a claim says of its holder
_STAGING_DIRECTORIES = 16  # of a session: threads that make files in one directory wait for each other
_MANY_STAGED = 5_000  # objects: then they are made durable and visible while others are put
_TOO_MANY_STAGED = 40_000  # objects: then whoever puts waits for the disk


class LocalStore:
    """An `ObjectStore` in *root*, which need not exist before something is written.

    Any number of processes may read and publish at the same time; `data/txn/lock` is held for moments only.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._txn = f"{root}/data/txn"
        self._lock_file = f"{self._txn}/lock"
        self._session: _Session | None = None
        self._staged: dict[ObjectName, str] = {}  # where an object lies until `flush`, in the order of the puts
        self._flushing = Lock()
        self._failure: BaseException | None = None  # of a flush that nobody waited for

    def get(self, name: ObjectName) -> bytes:
        if staged := self._staged.get(name):
            with suppress(FileNotFoundError):  # renamed by `flush` a moment ago
                return read_regular(staged)
        try:
            return read_regular(self._path(name))
        except FileNotFoundError:
            raise ObjectMissing(str(name)) from None

    def exists(self, name: ObjectName) -> bool:
        return name in self._staged or regular_size(self._path(name)) is not None

    def size(self, name: ObjectName) -> int:
        staged = self._staged.get(name)
        size = regular_size(staged) if staged else None
        if size is None:
            size = regular_size(self._path(name))
        if size is None:
            raise ObjectMissing(str(name))
        return size

    def put(self, name: ObjectName, data: bytes | bytearray | memoryview) -> None:
        session = self._open_session()
        if self.exists(name):
            return
        path = session.new_path()
        write_new(path, data)
        if self._staged.setdefault(name, path) != path:  # another thread was faster
            os.unlink(path)
        if len(self._staged) >= _MANY_STAGED and not self._flushing.locked():
            session.flusher.submit(self._flush_early)
        if len(self._staged) >= _TOO_MANY_STAGED:
            self.flush()

    def flush(self) -> None:
        with self._flushing:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._staged:
                self._flush(self._open_session())

    def _flush_early(self) -> None:
        with self._flushing:
            try:
                self._flush(self._open_session())
            except BaseException as error:  # noqa: BLE001 - the next `flush` raises it
                self._failure = error

    def _flush(self, session: "_Session") -> None:
        staged = list(self._staged.items())
        try:
            session.sync()
        except BaseException:
            for name, _ in staged:  # what of them reached the disk, nobody knows
                del self._staged[name]
            raise
        for name, path in staged:
            with store_errors(self._path(name)):
                os.rename(path, self._path(name))
            del self._staged[name]
        session.sync()

    def read_file(self, name: str) -> bytes | None:
        try:
            return read_regular(f"{self._root}/{_root_file(name)}")
        except FileNotFoundError:
            return None

    def write_file(self, name: str, data: bytes) -> None:
        self._make_directories()
        with locked(self._lock_file):
            self._replace(name, data)

    def replace_head(self, expected: bytes | None, manifest: bytes, reflog: bytes) -> None:
        if self._staged:
            self.flush()
        else:  # what others renamed, and we found to exist, may not be durable yet
            self._make_directories()
            self._sync()
        with locked(self._lock_file):
            if self.read_file(MANIFEST) != expected:
                raise HeadMoved(f"another publisher replaced {self._root}/{MANIFEST}")
            self._replace(REFLOG, reflog)
            self._replace(MANIFEST, manifest)

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """The kernel takes the lock away from a process that dies; the file says only whom to look for."""
        self._make_directories()
        path = f"{self._txn}/claim-{name}"
        with store_errors(path):
            descriptor = try_lock(path)
        if descriptor is None:
            raise Claimed(name, read_regular(path)[:_LONGEST_HOLDER].decode("ascii", "replace"))
        try:
            with store_errors(path):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def session(self) -> Iterator[None]:
        if self._session is not None:
            raise RuntimeError("a store object has one session at a time")
        self._make_directories()
        with locked(self._lock_file), store_errors(self._txn):
            spread_below(self._txn)  # a session begins where nothing was deleted a moment ago
            _remove_dead_sessions(self._txn)
            self._session = session = _Session(self._root, f"{self._txn}/{_SESSION}{uuid.uuid4().hex}")
        try:
            yield
        finally:
            session.flusher.shutdown(cancel_futures=True)
            self._session, self._staged, self._failure = None, {}, None
            session.close()

    def _open_session(self) -> "_Session":
        if self._session is None:
            raise RuntimeError("objects can be put within a session only")
        return self._session

    def _sync(self) -> None:
        with store_errors(self._root):
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file_system(descriptor, self._root)
        finally:
            os.close(descriptor)

    def _path(self, name: ObjectName) -> str:
        return f"{self._root}/{name.path}"

    def _replace(self, name: str, data: bytes) -> None:
        replace_durably(self._root, _root_file(name), f"{self._txn}/{name}.new", data)

    def _make_directories(self) -> None:
        if os.path.isdir(f"{self._root}/data/ff"):  # the last one that is made
            return
        with store_errors(self._root):
            txn = Path(self._txn)
            for path in [*reversed(txn.parents), txn, *(txn.parent / f"{number:02x}" for number in range(256))]:
                make_directory(path)


class _Session:
    """A directory for staged objects, whose lock says that its process lives."""

    def __init__(self, root: str, path: str) -> None:
        """To be called with the store's lock held, so that nobody takes the new directory for a dead one's."""
        self._root, self._path = root, path
        self._numbers = count()
        self.flusher = ThreadPoolExecutor(1, "flush")  # so that those who put need not wait for the disk
        self._lock: int | None = None
        self._file_system = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            make_directory(path)
            self._lock = try_lock(f"{path}/lock")
            for number in range(_STAGING_DIRECTORIES):
                make_directory(f"{path}/{number}")
        except BaseException:
            self.close()
            raise

    def new_path(self) -> str:
        number = next(self._numbers)
        return f"{self._path}/{number % _STAGING_DIRECTORIES}/{number}"

    def sync(self) -> None:
        sync_file_system(self._file_system, self._root)

    def close(self) -> None:
        try:
            shutil.rmtree(self._path, ignore_errors=True)
        finally:
            os.close(self._file_system)
            if self._lock is not None:
                os.close(self._lock)


def _remove_dead_sessions(txn: str) -> None:
    for name in os.listdir(txn):
        if not name.startswith(_SESSION):
            continue
        with suppress(OSError):  # it ended by itself, or can't be removed: not our session's business
            descriptor = try_lock(f"{txn}/{name}/lock")
            if descriptor is not None:
                shutil.rmtree(f"{txn}/{name}", ignore_errors=True)
                os.close(descriptor)


def _root_file(name: str) -> str:
    if not name.startswith(".cvmfs") or "/" in name:
        raise ValueError(f"not a root file: {name!r}")
    return name
