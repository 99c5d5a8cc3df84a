"""From a layer's directory to the archive that registries keep: the way back from `unpack`.

Whiteouts become empty files `.wh.<name>`, hidden directories get a `.wh..wh..opq`. Times are in whole seconds and
entries in the order of names, so that the same directory gives the same bytes. Attributes are those that a layer may
bring to any machine.
"""

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ducc.errors import DuccError
from ducc.layer.whiteout import OPAQUE_MARKER, WHITEOUT_PREFIX
from ducc.rootfs.mounts import open_directory_beneath
from graphdriver.changes import Change, ChangeKind
from graphdriver.directory import Found, walk

_PIECE = 1 << 20
_END = bytes(2 * tarfile.BLOCKSIZE)
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class FileChanged(DuccError):
    """A file became shorter while it was read, so the archive would not be what it says."""


def archive_of_layer(top: Path) -> Iterator[bytes]:
    """The archive of the layer in *top*, piece by piece."""
    names: dict[tuple[int, int], bytes] = {}
    for found in walk(top):
        if found.is_whiteout:
            yield _mark(found.path[: -len(found.name)] + WHITEOUT_PREFIX + found.name)
            continue
        yield from _member(found, names)
        if found.is_opaque:
            yield _mark(found.path + b"/" + OPAQUE_MARKER)
    yield _END


def archive_of_changes(top: Path, changes: Iterable[Change]) -> Iterator[bytes]:
    """The archive that makes *changes* of whatever they are changes of; *top* is what comes out."""
    names: dict[tuple[int, int], bytes] = {}
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, kind in changes:
            directory, _, name = path.rpartition(b"/")
            if kind is ChangeKind.DELETED:
                yield _mark(directory + b"/" + WHITEOUT_PREFIX + name)
                continue
            parent = open_directory_beneath(root, directory[1:] or b".")
            try:
                yield from _member(Found(path, name, parent, os.lstat(name, dir_fd=parent)), names)
            finally:
                os.close(parent)
    finally:
        os.close(root)
    yield _END


def _mark(path: bytes) -> bytes:
    """A member that is there for its name."""
    return _header(tarfile.TarInfo(os.fsdecode(path[1:])))


def _member(found: Found, names: dict[tuple[int, int], bytes]) -> Iterator[bytes]:
    """One entry; *names* are of the files so far that have several. Sockets have no place in an archive."""
    status = found.status
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return
    member = tarfile.TarInfo(os.fsdecode(found.path[1:]))
    member.type, member.mode, member.mtime = kind, stat.S_IMODE(status.st_mode), int(status.st_mtime)
    member.uid, member.gid = status.st_uid, status.st_gid
    if kind == tarfile.SYMTYPE:
        member.linkname = os.readlink(os.fsdecode(found.name), dir_fd=found.parent)
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if not found.is_directory and status.st_nlink > 1:
        first = names.setdefault((status.st_dev, status.st_ino), found.path)
        if first != found.path:
            member.type, member.linkname = tarfile.LNKTYPE, os.fsdecode(first[1:])
            yield _header(member)
            return
    member.pax_headers = {
        f"SCHILY.xattr.{name}": os.fsdecode(value)
        for name, value in found.attributes().items()
        if name == "security.capability" or name.startswith("user.")
    }
    if kind == tarfile.REGTYPE:
        member.size = status.st_size
    yield _header(member)
    if kind == tarfile.REGTYPE and member.size:
        yield from _content(found, member.size)


def _content(found: Found, size: int) -> Iterator[bytes]:
    descriptor = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=found.parent)
    try:
        left = size
        while left:
            piece = os.read(descriptor, min(_PIECE, left))
            if not piece:
                raise FileChanged(f"{os.fsdecode(found.path)!a} became shorter while it was read")
            left -= len(piece)
            yield piece
    finally:
        os.close(descriptor)
    yield bytes(-size % tarfile.BLOCKSIZE)


def _header(member: tarfile.TarInfo) -> bytes:
    if member.isdir():
        member.name += "/"
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
