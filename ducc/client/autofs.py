"""The kernel's automounter: a directory whose names are mounted when they are first touched.

Whoever touches a name waits while the kernel writes a packet into a pipe, and goes on when it is told that something is
mounted there, or nothing can be. Processes of the group that has mounted, or taken over, see the bare directory and
never wait; all that mounts and unmounts has to belong to it. Source: autofs(5), Documentation/filesystems/autofs.rst.
"""

import ctypes
import fcntl
import os
import struct
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from ducc.client.mountpoint import MountFailed, mounted_at

TYPE, SOURCE = "autofs", "ducc"  # as the kernel's table has them
_CONTROL = "/dev/autofs"
_PROTOCOL = 5
_PACKET = struct.Struct("@iiIIQIIIII256s4x")  # v5; padded as 64-bit machines do
_MS_NOSUID, _MS_NODEV, _MNT_DETACH = 2, 4, 2
_READY, _FAIL, _CATATONIC = 0x9360, 0x9361, 0x9362
_SET_TIMEOUT, _EXPIRE_MULTI = 0xC0089364, 0x40049366
_SET_PIPE = 0xC0189378
_CONTROL_MESSAGE = struct.Struct("@IIIiii")  # version (two), size, descriptor of the directory, of the pipe, padding

_libc = ctypes.CDLL(None, use_errno=True)


class Kind(IntEnum):
    MISSING = 3
    EXPIRE = 4


class Packet(NamedTuple):
    """*name* is wanted, or not used any more; the kernel waits to be told about *token*."""

    kind: int
    token: int
    name: bytes


class Autofs:
    """The automounter's end of the directory."""

    def __init__(self, directory: Path) -> None:
        """Mount at *directory*, or go on where a process has ended that had done so. Raises `MountFailed`."""
        self.directory = directory
        self.pipe, writing = os.pipe2(os.O_CLOEXEC)
        try:
            if _is_ours(directory):
                self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._take_over(writing)
            else:
                _mount(directory, writing)
                self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self.pipe)
            raise MountFailed(f"{directory}: the kernel's automounter can't be used: {error.strerror}") from error
        finally:
            os.close(writing)

    def _take_over(self, writing: int) -> None:
        """Whoever still waits for an answer of the former process is told that there is nothing."""
        fcntl.ioctl(self._root, _CATATONIC, 0)
        message = _CONTROL_MESSAGE.pack(1, 0, _CONTROL_MESSAGE.size, self._root, writing, 0)
        control = os.open(_CONTROL, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(control, _SET_PIPE, message)
        finally:
            os.close(control)

    def read(self) -> Packet | None:
        """The next packet, waited for; None if the directory has been unmounted."""
        raw = os.read(self.pipe, _PACKET.size)
        if len(raw) < _PACKET.size:
            return None
        _, kind, token, *_, length, name = _PACKET.unpack(raw)
        return Packet(kind, token, name[:length])

    def ready(self, token: int) -> None:
        self._answer(_READY, token)

    def fail(self, token: int) -> None:
        self._answer(_FAIL, token)

    def _answer(self, command: int, token: int) -> None:
        with suppress(OSError):  # nobody waits any more
            fcntl.ioctl(self._root, command, token)

    def expire_after(self, seconds: int) -> None:
        fcntl.ioctl(self._root, _SET_TIMEOUT, struct.pack("@L", seconds))

    def expire_one(self) -> bool:
        """Let one mount go that nobody has used for long enough; False if there is none. Waits for the answer."""
        try:
            fcntl.ioctl(self._root, _EXPIRE_MULTI, struct.pack("@i", 0))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Hear and say nothing more."""
        os.close(self._root)
        os.close(self.pipe)


def detach(directory: Path) -> None:
    """Take the directory away, with all that is mounted below it, even if it is in use."""
    _libc.umount2(os.fsencode(directory), _MNT_DETACH)


def _is_ours(directory: Path) -> bool:
    entry = mounted_at(directory)
    if entry is None:
        return False
    if (entry.type, entry.source) != (TYPE, SOURCE):
        raise MountFailed(f"something is mounted at {directory} already")
    return True


def _mount(directory: Path, writing: int) -> None:
    options = f"fd={writing},pgrp={os.getpgrp()},minproto={_PROTOCOL},maxproto={_PROTOCOL},indirect"
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    if _libc.mount(SOURCE.encode(), os.fsencode(directory), TYPE.encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
