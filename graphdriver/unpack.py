"""From the archive of a layer to a directory that overlayfs can stack.

Every name is looked up below the layer's own directory, as if that were the root: links in the archive lead nowhere
else. The archive's reader is the publisher's; what Docker itself would unpack is unpacked. Hidden files become
character devices 0:0, hidden directories get an attribute (see `directory`).
"""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from ducc.layer.block import Header, Refusal
from ducc.layer.stream import READ_SIZE, Readable
from ducc.layer.tar import MalformedArchive, TarReader, place_of
from ducc.layer.whiteout import OPAQUE_MARKER, WHITEOUT_PREFIX, normal_path
from ducc.rootfs.mounts import open_within
from graphdriver.directory import OPAQUE, OVERLAY_ATTRIBUTES, Below, attributes

_RECORD = b"SCHILY.xattr."
_AUFS_PREFIX = b".wh..wh."
_REGULAR, _HARD_LINK, _SYMLINK, _DIRECTORY, _FIFO = (b"0", b"\0", b"7", b"S"), b"1", b"2", b"5", b"6"
_DEVICES = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK}
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLE = 4096  # bytes; zeros from here on are not written
_ZEROS = bytes(READ_SIZE)


def unpack(archive: Readable, top: Path, below: Below, layer: str) -> None:
    """Unpack *archive* into the empty directory *top*, a layer on *below*. All of *archive* has been read afterwards.

    *layer* names it in errors. Raises `MalformedArchive`, also for what can't be put where it says, and `OSError`.
    """
    counted = _Counted(archive)
    unpacking = _Unpacking(TarReader(counted, layer), top, below)
    try:
        unpacking.run(layer)
    finally:
        unpacking.close()
    while counted.read(READ_SIZE):
        pass
    if not counted.received:
        raise MalformedArchive(layer, "its beginning", "nothing was sent: not even an end of archive")


class _Counted:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self.received = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.received += len(data)
        return data


class _Unpacking:
    """One archive on its way into one directory."""

    def __init__(self, tar: TarReader, top: Path, below: Below) -> None:
        self._tar, self._below = tar, below
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent = (b"", os.dup(self._top))  # the directory of the member before, most often that of the next, too
        self._times: dict[bytes, int] = {}  # of directories; what is put into them changes theirs

    def close(self) -> None:
        os.close(self._parent[1])
        os.close(self._top)

    def run(self, layer: str) -> None:
        for header in self._tar:
            try:
                self._put(header)
            except Refusal as refusal:
                raise MalformedArchive(layer, place_of(header.name), str(refusal)) from None
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
                raise MalformedArchive(layer, place_of(header.name), error.strerror or str(error)) from error
        for path, mtime_ns in self._times.items():
            with contextlib.suppress(OSError):  # replaced meanwhile
                os.utime(self._enter(path), ns=(mtime_ns, mtime_ns))

    def _put(self, header: Header) -> None:
        path = normal_path(header.name)
        directory, _, name = path.rpartition(b"/")
        if name.startswith(_AUFS_PREFIX) and name != OPAQUE_MARKER:
            return
        if not path:
            if header.flag == _DIRECTORY:
                self._describe(f"/proc/self/fd/{self._top}", header, path)
            return
        is_mark = name.startswith(WHITEOUT_PREFIX)
        try:
            parent = os.dup(self._enter(directory))
        except NotADirectoryError:
            if is_mark:
                return  # in what is no directory here, nothing of lower layers can be seen
            raise
        try:
            if name == OPAQUE_MARKER:
                os.setxattr(parent, OPAQUE, b"y")
            elif is_mark:
                self._hide(parent, name.removeprefix(WHITEOUT_PREFIX))
            elif header.flag != _HARD_LINK or normal_path(header.link) != path:
                self._create(parent, name, path, header)
        finally:
            os.close(parent)

    # --- one member ---

    def _create(self, parent: int, name: bytes, path: bytes, header: Header) -> None:
        place = _place(parent, name)
        was_hidden = self._clear(parent, name, keep_directory=header.flag == _DIRECTORY)
        if header.flag in _REGULAR:
            self._write(parent, name)
        elif header.flag == _DIRECTORY:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
            if was_hidden:
                os.setxattr(place, OPAQUE, b"y")
        elif header.flag == _SYMLINK:
            os.symlink(header.link, name, dir_fd=parent)
        elif header.flag == _HARD_LINK:
            self._link(parent, name, normal_path(header.link))
            return
        elif header.flag == _FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif header.flag in _DEVICES:
            device = os.makedev(header.major, header.minor)
            if device == 0 and header.flag == b"3":
                return  # to overlayfs it would be a whiteout
            os.mknod(name, _DEVICES[header.flag] | 0o600, device, dir_fd=parent)
        else:
            raise Refusal(f"type {header.flag!r} is not known")
        self._describe(place, header, path)

    def _write(self, parent: int, name: bytes) -> None:
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            size = 0
            for piece in self._tar.pieces(READ_SIZE):
                if len(piece) < _HOLE or piece != _ZEROS[: len(piece)]:
                    _write_all(descriptor, piece, size)
                size += len(piece)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def _link(self, parent: int, name: bytes, target: bytes) -> None:
        """Give the file at *target* one more name; if only a lower layer has it, this layer gets a copy first."""
        directory, _, target_name = target.rpartition(b"/")
        source = os.dup(self._enter(directory))
        try:
            try:
                os.link(target_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                lower = self._below.find(target)
                if lower is None:
                    raise Refusal(f"a hard link to {target[:256]!r}, which no layer has") from None
                _copy(lower, source, target_name)
                os.link(target_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _describe(self, place: str, header: Header, path: bytes) -> None:
        """Owner, mode, attributes, time: in this order, since a new owner takes away bits and capabilities."""
        follow = header.flag == _DIRECTORY and not path
        os.chown(place, header.uid, header.gid, follow_symlinks=follow)
        if header.flag != _SYMLINK:
            os.chmod(place, header.mode & 0o7777)
        for key, value in header.records.items():
            if key.startswith(_RECORD):
                _set_attribute(place, os.fsdecode(key[len(_RECORD) :]), value, follow)
        mtime_ns = header.mtime * 10**9 + header.mtime_ns
        if header.flag == _DIRECTORY:
            self._times[path] = mtime_ns
        else:
            os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def _hide(self, parent: int, name: bytes) -> None:
        """Let nothing of lower layers be seen at *name*; what this layer itself has there stays."""
        if name in (b"", b".", b".."):
            raise Refusal("a whiteout of nothing")
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                os.setxattr(_place(parent, name), OPAQUE, b"y")

    def _clear(self, parent: int, name: bytes, *, keep_directory: bool) -> bool:
        """Make room for a member; was there a whiteout? A directory stays where another one comes."""
        try:
            status = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=parent)
        elif not keep_directory:
            self._leave()
            shutil.rmtree(name, dir_fd=parent)
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

    # --- directories ---

    def _enter(self, path: bytes) -> int:
        """The directory *path*, which is made if it is not there; open until the next call."""
        if self._parent[0] != path:
            try:
                opened = open_within(self._top, path[1:] or b".")
            except FileNotFoundError:
                opened = self._make(path)
            self._leave()
            os.close(self._parent[1])
            self._parent = (path, opened)
        return self._parent[1]

    def _leave(self) -> None:
        """Do not take the directory of the member before for the next one's."""
        os.close(self._parent[1])
        self._parent = (b"", os.dup(self._top))

    def _make(self, path: bytes) -> int:
        """Make the directory and those above that are missing, each as the lower layers have it."""
        above, _, name = path.rpartition(b"/")
        parent = os.dup(self._enter(above))
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            lower = self._below.find(path)
            if lower is not None and lower.is_dir() and not lower.is_symlink():
                _describe_as(lower, _place(parent, name))
                self._times[path] = lower.stat().st_mtime_ns
            return open_within(parent, name)
        finally:
            os.close(parent)


def _place(parent: int, name: bytes) -> str:
    """A path for calls that take no descriptor, and are told not to follow what is there."""
    return f"/proc/self/fd/{parent}/{os.fsdecode(name)}"


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _set_attribute(place: str, name: str, value: bytes, follow: bool) -> None:
    """Not overlayfs's own; and as with Docker, what the file system does not take is left out."""
    if not name.startswith(OVERLAY_ATTRIBUTES):
        try:
            os.setxattr(place, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _copy(lower: Path, parent: int, name: bytes) -> None:
    """Copy a lower layer's file, as overlayfs does before it is changed."""
    place = _place(parent, name)
    status = os.lstat(lower)
    if stat.S_ISREG(status.st_mode):
        shutil.copyfile(lower, place, follow_symlinks=False)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(lower), place)
    elif not stat.S_ISDIR(status.st_mode):
        os.mknod(place, status.st_mode, status.st_rdev)
    else:
        raise Refusal("a hard link to a directory")
    _describe_as(lower, place)


def _describe_as(lower: Path, place: str) -> None:
    status = os.lstat(lower)
    os.chown(place, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(place, stat.S_IMODE(status.st_mode))
    for name, value in attributes(lower).items():
        _set_attribute(place, name, value, follow=False)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
