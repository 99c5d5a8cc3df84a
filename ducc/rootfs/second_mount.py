"""A second mount of a repository, in which nothing has extended attributes: `ducc mount --no-xattrs`.

overlayfs asks for attributes of all that a new container looks up, and the kernel remembers no answer but one: that a
file system has none at all. So trees without attributes are best read there, for as long as that mount is there, and is
what it should be. Nothing depends on it: the repository's own mount has everything.
"""

import errno
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ducc.client.mountpoint import our_mounts
from ducc.errors import DuccError
from ducc.rootfs.mounts import can_be_listed, is_answered_for, is_there, open_directory_beneath

log = logging.getLogger(__name__)

_COUNTERS = "user.catalog_counters"  # both clients say them; source: the format, "File system semantics"
_ANY_ATTRIBUTE = "user.fqrn"  # what every other mount of a repository has
_LONG_SECONDS = 1.0  # whoever has asked for so long is not followed by others


class NoSecondMount(DuccError):
    """What is mounted there, if anything is, can't be used in place of the repository's own mount."""


def has_no_xattrs(top: int, path: bytes) -> bool:
    """Does the repository's own mount, open as *top*, say that nothing in the tree at *path* has an attribute?

    It counts those of the catalog that begins there, and of all below that. Where none begins, or nothing is said, the
    answer is no.
    """
    try:
        directory = open_directory_beneath(top, path[1:])
        try:
            said = os.getxattr(directory, _COUNTERS).splitlines()
        finally:
            os.close(directory)
    except OSError:
        return False
    return b"catalog_mountpoint: " + path in said and b"xattr,0" in said


@dataclass(slots=True)
class SecondMount:
    """The second mount of the repository *fqrn*, which need not be there. Thread-safe."""

    fqrn: str
    mountpoint: Path
    _checked: tuple[int, ...] = field(default=(), init=False, compare=False, repr=False)
    _listed: set[bytes] = field(default_factory=set, init=False, compare=False, repr=False)
    _asked_at: dict[int, float] = field(default_factory=dict, init=False, compare=False, repr=False)
    _problem: str | None = field(default=None, init=False, compare=False, repr=False)

    def directory(self, path: bytes, answering: set[Path]) -> Path | None:
        """Where the directory *path* of the repository can be read now; None if it can't, for whatever reason.

        Mountpoints that have answered just now are among *answering*, where this one is put then.
        """
        if time.monotonic() - min(list(self._asked_at.values()), default=math.inf) > _LONG_SECONDS:
            self._tell("it does not answer")
            return None
        self._asked_at[threading.get_ident()] = time.monotonic()
        try:
            found = self._has(path, is_there if self.mountpoint in answering else is_answered_for)
        except NoSecondMount as error:
            self._tell(str(error))
        except OSError as error:
            self._tell(error.strerror or str(error))
        else:
            self._tell("")
            if found:
                answering.add(self.mountpoint)
                return self.mountpoint / os.fsdecode(path[1:])
        finally:
            del self._asked_at[threading.get_ident()]
        return None

    def _has(self, path: bytes, ask: Callable[[int, bytes], bool]) -> bool:
        """Is the directory there? Listed once, it is only asked for."""
        top = os.open(self.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._require_ours(top)
            found = ask(top, path) if path in self._listed else can_be_listed(top, path)
        finally:
            os.close(top)
        (self._listed.add if found else self._listed.discard)(path)
        return found

    def _require_ours(self, top: int) -> None:
        """Raises `NoSecondMount`. Whose it is is looked up anew when another file system, or revision, is seen."""
        status = os.fstat(top)
        seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if seen != self._checked and not self._is_mounted(status.st_dev):
            raise NoSecondMount("the repository is not mounted there")
        if _has_xattrs(top):
            raise NoSecondMount("it has extended attributes: mount it with --no-xattrs")
        self._checked = seen

    def _is_mounted(self, number: int) -> bool:
        """Is the device of that number a mount of this repository?"""
        device = f"{os.major(number)}:{os.minor(number)}"
        return any(mount.device == device and mount.source == self.fqrn for mount in our_mounts())

    def _tell(self, problem: str) -> None:
        """Log what has changed."""
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            log.warning("not used: mountpoint-without-xattrs=%s why=%s", self.mountpoint, problem)
        else:
            log.info("used: mountpoint-without-xattrs=%s", self.mountpoint)


def _has_xattrs(top: int) -> bool:
    """Where there are none, the kernel says so by itself."""
    try:
        os.getxattr(top, _ANY_ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        if error.errno != errno.ENODATA:
            raise
    return True
