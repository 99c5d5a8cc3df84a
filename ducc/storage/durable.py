"""Steps on a local file system that either happen whole or fail with the store's errors.

What `os` reports is translated here and nowhere else: full, forbidden and read-only are `StoreRefused`, the rest is
`StoreUnavailable`. Modes do not depend on the umask.
"""

import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ducc.storage.base import StoreRefused, StoreUnavailable

_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755
_UNCACHED_FROM = 256 << 10  # bytes of a file: smaller ones cost more when written one by one than memory does
_RWF_DONTCACHE = 0x80  # of pwritev2, Linux 6.14; Python has no name for it
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = (
    0x8008_6601,
    0x4008_6602,
    0x0002_0000,
)  # of linux/fs.h, where a long has 8 bytes
_NO = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EISDIR, errno.ENOTDIR}

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Translate the errors of a few calls that concern *what*."""
    try:
        yield
    except OSError as error:
        raise failure(error, what) from error


def failure(error: OSError, what: str) -> StoreRefused | StoreUnavailable:
    """What an error of the operating system means to a user of the store."""
    text = f"{what}: {error.strerror or error}"
    return StoreRefused(text) if error.errno in _NO else StoreUnavailable(text)


def read_regular(path: str) -> bytes:
    """Return a file's bytes; what is no regular file (a link, a directory, a pipe) is a fault of the store.

    That there is none is FileNotFoundError, for the caller to judge.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise StoreUnavailable(f"{path}: is not a regular file")
            with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
                return file.readall()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error


def regular_size(path: str) -> int | None:
    """Bytes of a file; None when there is none, or something that is no regular file."""
    try:
        about = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(error, path) from error
    return about.st_size if stat.S_ISREG(about.st_mode) else None


def write_new(path: str, data: bytes | bytearray | memoryview, *, durable: bool = False) -> None:
    """Make a file that holds *data* and nothing else; after an error there is no file of that name."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            _write_all(descriptor, data, path)
            os.fchmod(descriptor, _FILE_MODE)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _remove(path)
        raise failure(error, path) from error
    except BaseException:
        _remove(path)
        raise


def _write_all(descriptor: int, data: bytes | bytearray | memoryview, path: str) -> None:
    rest = memoryview(data).cast("B")
    size = len(rest)
    write = write_uncached if size >= _UNCACHED_FROM else os.pwrite
    while len(rest):
        rest = rest[write(descriptor, rest, size - len(rest)) :]
    if os.fstat(descriptor).st_size != size:  # the kernel's word for what was written is not enough
        raise StoreUnavailable(f"{path}: the file system did not take all that was written")


def write_uncached(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write as `os.pwrite` does, and ask the kernel not to keep the pages, where it can do that.

    For what is not read again soon: new pages cost more time than the disk, and push out what others need.
    """
    try:
        return os.pwritev(descriptor, [data], offset, _RWF_DONTCACHE)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return os.pwrite(descriptor, data, offset)


def replace_durably(directory: str, name: str, scratch: str, data: bytes) -> None:
    """Let *name* in *directory* hold *data*: after a crash it holds all of the old or all of the new.

    *scratch* is a name on the same file system that belongs to the caller.
    """
    _remove(scratch)
    write_new(scratch, data, durable=True)
    try:
        os.rename(scratch, f"{directory}/{name}")
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _remove(scratch)
        raise StoreUnavailable(f"{directory}/{name}: {error.strerror}") from error


def sync_file_system(descriptor: int, what: str) -> None:
    """Make durable all that was written to the file system on which *descriptor* lies.

    Reports writes that failed since *descriptor* was opened, once; then nobody knows what was lost.
    """
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise failure(OSError(number, os.strerror(number)), what)


def make_directory(path: str | Path) -> None:
    """Make a directory that everybody may read, unless it is there."""
    with suppress(FileExistsError):
        os.mkdir(path)
        os.chmod(path, _DIRECTORY_MODE)


def spread_below(path: str) -> None:
    """Ask for directories made in *path* from now on to lie far from each other on the disk, where ext4 can do that.

    (The attribute `T` of chattr.) For minutes after a file was deleted, ext4 gives its inode to no other, and looks at
    it again for each file that is made near it: after many deletions making one took five times as long.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = bytearray(8)
        with suppress(OSError):  # a file system without such flags
            fcntl.ioctl(descriptor, _GET_FLAGS, flags)
            number = int.from_bytes(flags[:4], sys.byteorder)
            if not number & _TOP_DIRECTORY:
                fcntl.ioctl(descriptor, _SET_FLAGS, (number | _TOP_DIRECTORY).to_bytes(4, sys.byteorder) + bytes(4))
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock file *path*, made if it is missing; wait for whoever else holds it."""
    with store_errors(path):
        descriptor = _open_lock(path)
    try:
        with store_errors(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: str) -> int | None:
    """Take a lock; return the descriptor that holds it until closed (or until we die), or None if another has it."""
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open_lock(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
