"""The kernel's side: overlays whose lower directories are said relative to one directory.

Mount options must fit in a page, and an image may have more than a hundred layers, so they are called by short names;
the kernel takes those from the working directory of the thread that mounts, and ours have one of their own.
"""

import ctypes
import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graphdriver.layers import RefusedCall

MOST_OPTION_BYTES = os.sysconf("SC_PAGESIZE") - 1
_CLONE_FS, _MNT_DETACH = 0x200, 2
_THREADS = 8

_libc = ctypes.CDLL(None, use_errno=True)


class Mounter:
    """Mounts overlays of directories below *top*. Calls may come from any thread."""

    def __init__(self, top: Path) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "mount", initializer=_stand_apart, initargs=(top,))

    def close(self) -> None:
        self._threads.shutdown()

    def overlay(self, target: Path, options: Sequence[str]) -> None:
        """Mount an overlay at *target*. Raises `RefusedCall` if the options are too long, and `OSError`."""
        self._threads.submit(_mount, target, ",".join(options).encode()).result()


def unmount(target: Path) -> None:
    """Take the mount at *target* away from here; who still uses it keeps it. Nothing mounted there is no error."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        raise _failure(target)


def _stand_apart(top: Path) -> None:
    """Give this thread a working directory of its own: *top*."""
    if _libc.unshare(_CLONE_FS):
        raise _failure(top)
    os.chdir(top)


def _mount(target: Path, options: bytes) -> None:
    if len(options) > MOST_OPTION_BYTES:
        raise RefusedCall(f"too many layers: mount options of {len(options)} bytes, {MOST_OPTION_BYTES} at most")
    if _libc.mount(b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(0), options):
        raise _failure(target)


def _failure(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
