"""The files of a mounted repository, by their paths in it: regular files and listings, no symbolic link followed."""

import errno
import os
import stat
from pathlib import Path

from ducc.image.strictjson import MAX_BYTES
from ducc.rootfs.locate import RepositoryUnavailable
from ducc.rootfs.mounts import open_directory_beneath

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)
_REVISION = b"user.revision"  # answered by our client and by the stock one


class MountedFiles:
    """What stands below *mountpoint*. Everything raises `RepositoryUnavailable` if that can't be said now."""

    def __init__(self, mountpoint: Path) -> None:
        self.mountpoint = mountpoint

    def revision(self) -> bytes | None:
        """Another value whenever something may have changed; None: nothing tells."""
        try:
            return os.getxattr(self.mountpoint, _REVISION)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            raise self._unavailable(error) from error

    def read(self, path: bytes) -> bytes | None:
        """The content of a document, or None if there is none of that name that is short enough to be one."""
        directory, _, name = path.rpartition(b"/")
        try:
            parent = self._open_directory(directory)
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            finally:
                os.close(parent)
            with open(descriptor, "rb") as file:
                is_document = stat.S_ISREG(os.fstat(descriptor).st_mode)
                data = file.read(MAX_BYTES + 1) if is_document else b""
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise self._unavailable(error) from error
        return data if is_document and len(data) <= MAX_BYTES else None

    def names(self, path: bytes) -> list[bytes]:
        """What the directory at *path* has; nothing if there is none."""
        try:
            descriptor = self._open_directory(path)
            try:
                return [os.fsencode(name) for name in os.listdir(descriptor)]
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return []
            raise self._unavailable(error) from error

    def _open_directory(self, path: bytes) -> int:
        top = os.open(self.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_directory_beneath(top, path[1:])
        finally:
            os.close(top)

    def _unavailable(self, error: OSError) -> RepositoryUnavailable:
        return RepositoryUnavailable(f"the repository at {self.mountpoint}: {error.strerror}")
