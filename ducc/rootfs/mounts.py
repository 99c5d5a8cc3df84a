"""The kernel's side: a directory below another one that no link leads away from, and the table of mounts."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

NOT_THERE = (errno.ENOENT, errno.ENOTDIR)

_OPENAT2 = 437  # the same on every architecture
_NO_MAGIC_LINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x02, 0x04, 0x08, 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_directory_beneath(top: int, path: bytes) -> int:
    """A descriptor of the directory *path*: see `open_beneath`."""
    return open_beneath(top, path, os.O_RDONLY | os.O_DIRECTORY)


def open_beneath(top: int, path: bytes, flags: int) -> int:
    """A descriptor of what is at *path* (relative) below the open directory *top*.

    Symbolic links are not followed, nor can the way lead out of *top*; both are an `OSError` like any other failure.
    """
    return _open(top, path, flags, _NO_MAGIC_LINKS | _NO_SYMLINKS | _BENEATH)


def open_within(top: int, path: bytes) -> int:
    """A descriptor of the directory *path*, as who has the open directory *top* as root finds it: no link leads out."""
    return _open(top, path, os.O_RDONLY | os.O_DIRECTORY, _NO_MAGIC_LINKS | _IN_ROOT)


def _open(top: int, path: bytes, flags: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    opened = _libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_int(top), ctypes.c_char_p(path), ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )  # fmt: skip
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(path))
    return int(opened)


def can_be_listed(top: int, path: bytes) -> bool:
    """Is there a directory at *path* (absolute) below *top*? Its first entry is read, as whoever mounts it would."""

    def list_it(directory: int) -> None:
        with os.scandir(directory) as entries:
            next(entries, None)

    return _is_there(top, path, list_it)


def is_answered_for(top: int, path: bytes) -> bool:
    """Is there a directory, and somebody who answers for it? That costs a tenth of listing it."""
    return _is_there(top, path, os.fstatvfs)  # the kernel remembers names and attributes, but not this


def is_there(top: int, path: bytes) -> bool:
    """Is there a directory, as far as the kernel remembers? That costs nothing, and nobody need answer."""
    return _is_there(top, path, lambda directory: None)


def _is_there(top: int, path: bytes, ask: Callable[[int], object]) -> bool:
    """Is there a directory? *ask* is given its descriptor, and may raise `OSError`."""
    try:
        directory = open_directory_beneath(top, path[1:])
    except OSError as error:
        if error.errno in NOT_THERE:
            return False
        raise
    try:
        ask(directory)
    finally:
        os.close(directory)
    return True


class MountEntry(NamedTuple):
    """A line of the kernel's table. *options* are those of the file system, such as `lowerdir=…`."""

    mountpoint: str
    type: str
    options: tuple[str, ...]


def mounted() -> list[MountEntry]:
    """All mounts that this process can see."""
    table = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    return parse_mountinfo(table.splitlines())


def parse_mountinfo(lines: Iterable[str]) -> list[MountEntry]:
    """Read the kernel's table; source: proc(5), "mountinfo"."""
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        found.append(MountEntry(_unescaped(before.split(" ")[4]), kind, tuple(map(_unescaped, options.split(",")))))
    return found


def _unescaped(text: str) -> str:
    """Blanks, tabs, newlines and backslashes are octal in the table."""
    for octal, meant in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, meant)
    return text
