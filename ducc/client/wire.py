"""What the kernel and a file system say to each other over /dev/fuse: requests, answers and notices, as bytes.

Only what a file system that is never written to needs. Pure. Source: the kernel's include/uapi/linux/fuse.h; numbers
are in the machine's own byte order. Protocol 7.31 (Linux 5.4) is the oldest that is understood.
"""

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

MAJOR, OLDEST_MINOR, MINOR = 7, 31, 38
ROOT_INODE = 1


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    READ = 15
    STATFS = 17
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    READDIR = 28
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    READDIRPLUS = 44


class Can(IntFlag):
    """What the kernel offers and we take."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    INIT_EXT = 1 << 30


NO_ROOM = memoryview(b"")


class Request(NamedTuple):
    """A question. *operation* need not be one of `Op`; *room*, lent until it is answered, is for large answers."""

    operation: int
    unique: int
    inode: int
    uid: int
    pid: int
    body: bytes
    room: memoryview = NO_ROOM


class Init(NamedTuple):
    """How the kernel introduces itself."""

    major: int
    minor: int
    read_ahead: int
    flags: int


class Attributes(NamedTuple):
    """What `stat` shows. Times are seconds and nanoseconds."""

    inode: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    blocks: int
    rdev: int
    mtime: int
    mtime_ns: int


_REQUEST = struct.Struct("=IIQQIIII")
_ANSWER = struct.Struct("=IiQ")
_INIT_IN = struct.Struct("=IIII")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_ENTRY = struct.Struct("=QQQQII")
_ATTRIBUTES = struct.Struct("=QQQqqqIIIIIIIIII")
_ATTRIBUTES_HEAD = struct.Struct("=QII")
_ENTRY_WITH_ATTRIBUTES = struct.Struct("=QQQQIIQQQqqqIIIIIIIIII")
_NAME_HEAD = struct.Struct("=QQII")
_READ = struct.Struct("=QQI")
_IOCTL = struct.Struct("=QIIQII")
_STATFS = struct.Struct("=QQQQQIIII24x")
_PAIR = struct.Struct("=II")
_NUMBER = struct.Struct("=Q")
_FORGET_ONE = struct.Struct("=QQ")
_STORE = struct.Struct("=QQII")
_INVALIDATE_INODE = struct.Struct("=Qqq")
_INVALIDATE_ENTRY = struct.Struct("=QII")

SMALLEST_BUFFER = 8192
REQUEST_BYTES = _REQUEST.size
ANSWER_BYTES = _ANSWER.size
PAGE = 4096
_NOTICE_INODE, _NOTICE_ENTRY, _NOTICE_STORE, _NOTICE_RESEND = 2, 3, 4, 7


def request(buffer: bytearray, size: int, room: memoryview = NO_ROOM) -> Request:
    _, operation, unique, inode, uid, _, pid, _ = _REQUEST.unpack_from(buffer)
    return Request(operation, unique, inode, uid, pid, bytes(memoryview(buffer)[REQUEST_BYTES:size]), room)


def answer(unique: int, size: int) -> bytes:
    """The head of an answer with *size* bytes."""
    return _ANSWER.pack(ANSWER_BYTES + size, 0, unique)


def answered_by(head: bytes | bytearray | memoryview) -> int:
    """The request whose answer begins so."""
    return int(_ANSWER.unpack(head)[2])


def refusal(unique: int, errno: int) -> bytes:
    return _ANSWER.pack(ANSWER_BYTES, -errno, unique)


# --- bodies of requests ----------------------------------------------------------------------


def init_in(body: bytes) -> Init:
    return Init(*_INIT_IN.unpack_from(body))


def name_in(body: bytes) -> bytes:
    return body[:-1]


def read_in(body: bytes) -> tuple[int, int]:
    """Offset and size, of a read from a file or a directory."""
    _, offset, size = _READ.unpack_from(body)
    return offset, size


def getxattr_in(body: bytes) -> tuple[int, bytes]:
    """How large the answer may be (0: tell how large it is), and the attribute's name, if one is asked for."""
    return _PAIR.unpack_from(body)[0], body[_PAIR.size : -1]


def ioctl_in(body: bytes) -> int:
    """What is asked of an open file."""
    return int(_IOCTL.unpack_from(body)[2])


def interrupt_in(body: bytes) -> int:
    """Which request nobody waits for any more."""
    return int(_NUMBER.unpack_from(body)[0])


def forgotten(message: Request) -> list[int]:
    """The inodes that the kernel has dropped."""
    if message.operation == Op.FORGET:
        return [message.inode]
    number = _PAIR.unpack_from(message.body)[0]
    return [_FORGET_ONE.unpack_from(message.body, 8 + 16 * at)[0] for at in range(number)]


# --- bodies of answers -----------------------------------------------------------------------


def init_out(init: Init, background: int, pages: int) -> bytes:
    """What we take of what the kernel offers; *background* requests may wait for us, of *pages* pages at most."""
    flags = init.flags & sum(Can)
    minor = min(init.minor, MINOR)
    return _INIT_OUT.pack(MAJOR, minor, init.read_ahead, flags, background, background * 3 // 4, PAGE, 1, pages, 0, 0)


def entry(found: Attributes, seconds: int) -> bytes:
    """What a name stands for, to be believed for *seconds*."""
    inode, mode, nlink, uid, gid, size, blocks, rdev, mtime, mtime_ns = found
    return _ENTRY_WITH_ATTRIBUTES.pack(
        inode, 0, seconds, seconds, 0, 0,
        inode, size, blocks, mtime, mtime, mtime, mtime_ns, mtime_ns, mtime_ns, mode, nlink, uid, gid, rdev, PAGE, 0,
    )  # fmt: skip


def no_entry(seconds: int) -> bytes:
    """A name stands for nothing, to be believed for *seconds*."""
    return _ENTRY.pack(0, 0, seconds, 0, 0, 0) + bytes(_ATTRIBUTES.size)


def attributes(found: Attributes, seconds: int) -> bytes:
    inode, mode, nlink, uid, gid, size, blocks, rdev, mtime, mtime_ns = found
    return _ATTRIBUTES_HEAD.pack(seconds, 0, 0) + _ATTRIBUTES.pack(
        inode, size, blocks, mtime, mtime, mtime, mtime_ns, mtime_ns, mtime_ns, mode, nlink, uid, gid, rdev, PAGE, 0
    )


def directory_entry(inode: int, mode: int, name: bytes, position: int) -> bytes:
    """A name in a listing; the listing goes on from *position*."""
    head = _NAME_HEAD.pack(inode, position, len(name), mode >> 12)
    return head + name + bytes(-len(name) % 8)


def statfs(block: int, blocks: int, free: int, longest_name: int) -> bytes:
    return _STATFS.pack(blocks, free, free, 0, 0, block, longest_name, block, 0)


def xattr_size(size: int) -> bytes:
    return _PAIR.pack(size, 0)


# --- notices -----------------------------------------------------------------------------------


def forget_name(directory: int, name: bytes) -> bytes:
    body = _INVALIDATE_ENTRY.pack(directory, len(name), 0) + name + b"\0"
    return _ANSWER.pack(ANSWER_BYTES + len(body), _NOTICE_ENTRY, 0) + body


def forget_inode(inode: int, *, content: bool) -> bytes:
    """Forget its attributes; with *content* also what was read of it, which for a directory is its listing."""
    body = _INVALIDATE_INODE.pack(inode, 0 if content else -1, 0)
    return _ANSWER.pack(ANSWER_BYTES + len(body), _NOTICE_INODE, 0) + body


def store(inode: int, size: int) -> bytes:
    """The head of a notice: the next *size* bytes are how the content of the file begins."""
    body = _STORE.pack(inode, 0, size, 0)
    return _ANSWER.pack(ANSWER_BYTES + len(body) + size, _NOTICE_STORE, 0) + body


def send_again() -> bytes:
    """Send again all requests that were read and not answered."""
    return _ANSWER.pack(ANSWER_BYTES, _NOTICE_RESEND, 0)
