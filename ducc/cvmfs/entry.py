"""One directory entry, as a row of a catalog's main table describes it.

Paths are bytes: `b""` is the root, `b"/a/b"` anything else; they are never normalised. A path's *key* is its MD5,
split into two signed 64-bit integers, and is how rows are found.
"""

import hashlib
import stat
import struct
from typing import NamedTuple, cast

PathKey = tuple[int, int]
NO_PARENT: PathKey = (0, 0)

_key_of = struct.Struct("<qq").unpack


class Flags:
    """Bits of the flags column. Bits 8-10 hold the hash algorithm less one (0: SHA-1), 11-13 the compression."""

    DIRECTORY = 0x1
    NESTED_MOUNTPOINT = 0x2
    FILE = 0x4
    LINK = 0x8
    SPECIAL = 0x10
    NESTED_ROOT = 0x20
    CHUNKED = 0x40
    EXTERNAL = 0x80
    HASH_ALGORITHM = 0x700
    COMPRESSION = 0x3800
    BIND_MOUNTPOINT = 0x4000
    HIDDEN = 0x8000
    DIRECT_IO = 0x10000


_COMPRESSION_SHIFT = 11
_KIND_OF_MODE = 0o170000
_KIND_FLAGS = {stat.S_IFREG: Flags.FILE, stat.S_IFDIR: Flags.DIRECTORY, stat.S_IFLNK: Flags.FILE | Flags.LINK}
ZLIB, STORED = 0, 1  # compression ids


class Chunk(NamedTuple):
    """A piece of a big file, an object of its own (suffix P)."""

    offset: int
    size: int
    digest: bytes


class Entry(NamedTuple):
    """What a name stands for. Where a subtree is mounted from another catalog is not its business.

    *mode* is the whole `st_mode`. *size* is the content's length, a symlink's target's length, or a device's
    `st_rdev`. *content* names the bulk object (None for all but unchunked regular files). *xattrs* is encoded.
    *link_group* is 0 or says, within one directory, which names share an inode; *linkcount* is 1 for files outside
    a group, and for directories 2 plus the number of sub-directories.
    """

    name: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    symlink: bytes = b""
    content: bytes | None = None
    chunks: tuple[Chunk, ...] = ()
    xattrs: bytes = b""
    linkcount: int = 1
    link_group: int = 0
    compression: int = ZLIB
    hidden: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """Is it the character device 0:0 by which overlayfs hides a name of the layers below?"""
        return self.size == 0 and stat.S_ISCHR(self.mode)

    @property
    def flags(self) -> int:
        """The flags column, less the bits that say where catalogs meet."""
        flags = _KIND_FLAGS.get(self.mode & _KIND_OF_MODE, Flags.FILE | Flags.SPECIAL)
        if self.chunks:
            flags |= Flags.CHUNKED
        if self.hidden:
            flags |= Flags.HIDDEN
        return flags | self.compression << _COMPRESSION_SHIFT


def compression_of(flags: int) -> int:
    """Compression id of an entry's object or chunks."""
    return (flags & Flags.COMPRESSION) >> _COMPRESSION_SHIFT


def path_key(path: bytes) -> PathKey:
    """The two integers under which a path's row is stored."""
    return cast(PathKey, _key_of(hashlib.md5(path).digest()))


ROOT_KEY = path_key(b"")
