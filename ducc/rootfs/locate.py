"""Where a published layer is: a directory below a repository's mountpoint that can be listed now, or why not.

A path is made of a `Digest` and nothing else that came from outside. Repositories are published as a whole, so a
layer that can be seen is complete.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from ducc import layout
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.rootfs.mounts import open_directory_beneath

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class LayerAbsent(DuccError):
    """The repository answers, and does not have the layer."""


class RepositoryUnavailable(DuccError):
    """The repository is not mounted, or its mount does not answer."""

    retryable = True


@dataclass(frozen=True, slots=True)
class MountedRepository:
    """A repository by its name, and where this machine shows it."""

    fqrn: str
    mountpoint: Path

    def layer(self, digest: Digest) -> Path:
        """The directory of the layer. Raises `LayerAbsent` or `RepositoryUnavailable`."""
        path = layout.layer_tree(digest)
        try:
            _list(self.mountpoint, path[1:])
        except OSError as error:
            raise self._failure(error, digest) from error
        return self.mountpoint / os.fsdecode(path[1:])

    def _failure(self, error: OSError, digest: Digest) -> DuccError:
        if error.errno not in _NOT_THERE:
            return RepositoryUnavailable(f"{self.fqrn} at {self.mountpoint}: {error.strerror}")
        if not os.path.ismount(self.mountpoint):
            return RepositoryUnavailable(f"{self.fqrn} is not mounted at {self.mountpoint}")
        return LayerAbsent(f"{self.fqrn} does not have layer {digest}")


def _list(mountpoint: Path, path: bytes) -> None:
    """Open the directory and read its first entry, as whoever mounts it would."""
    top = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory = open_directory_beneath(top, path)
    finally:
        os.close(top)
    try:
        with os.scandir(directory) as entries:
            next(entries, None)
    finally:
        os.close(directory)
