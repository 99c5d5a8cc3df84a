"""Everything odd that a layer may hold and a file system must show again; made by hand, byte by byte.

`oddities` is a layer for looking at; `to_be_pruned` holds what later layers delete and replace.
"""

import struct
from collections.abc import Iterator

from tests.builders import (
    LONG_AGO,
    Entry,
    block_device,
    character_device,
    directory,
    fifo,
    file,
    hard_link,
    symlink,
)

TOP = b"opt/oddities/"
SECOND = 10**9

# What shells and careless quoting trip over; every runtime must show these values as they are.
NASTY_ENVIRONMENT = (
    'QUOTES=it\'s "quoted"',
    "DOLLAR=$HOME and `backticks` and $(command)",
    "BACKSLASH=C:\\temp\\new",
    "SPACES=  two before, one after ",
    "EMPTY=",
    "UNICODE=naïve ☃",
)


def capability(bits: int) -> bytes:
    """The `security.capability` attribute, revision 2: *bits* permitted and effective."""
    return struct.pack("<5I", 0x02000001, bits & 0xFFFFFFFF, 0, bits >> 32, 0)


def oddities() -> Iterator[Entry]:
    yield directory(TOP)
    yield from odd_modes()
    yield from odd_owners()
    yield from odd_attributes()
    yield from odd_links()
    yield from odd_types()
    yield from odd_names()
    yield from odd_times()
    yield from odd_sizes()


def odd_modes() -> Iterator[Entry]:
    here = TOP + b"modes/"
    yield directory(here)
    for mode in (0o000, 0o001, 0o111, 0o222, 0o444, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777):
        yield file(here + b"file-%04o" % mode, b"#!/bin/sh\nid\n", mode=mode)
    for mode in (0o000, 0o111, 0o555, 0o1777, 0o2775, 0o3777):
        yield directory(here + b"directory-%04o" % mode, mode=mode)
        yield file(here + b"directory-%04o/inside" % mode, b"inside")


def odd_owners() -> Iterator[Entry]:
    here = TOP + b"owners/"
    yield directory(here, uid=1000, gid=100)
    for uid, gid in ((0, 5), (1, 0), (1234, 5678), (65534, 65534), (2097152, 70000), (2**31 + 5, 2**32 - 7)):
        yield file(here + b"file-%d-%d" % (uid, gid), b"owned", uid=uid, gid=gid)
        yield symlink(here + b"link-%d-%d" % (uid, gid), "nowhere", uid=uid, gid=gid)
    yield file(here + b"setuid-of-nobody", b"#!/bin/sh\n", uid=65534, gid=65534, mode=0o6755)


def odd_attributes() -> Iterator[Entry]:
    here = TOP + b"attributes/"
    yield directory(here, xattrs={"user.on.directory": b"yes"})
    yield file(here + b"capable", b"#!/bin/sh\n", mode=0o755, xattrs={"security.capability": capability(1 << 13)})
    yield file(here + b"binary", b"x", xattrs={"user.binary": bytes(range(256))})
    yield file(here + b"many", b"x", xattrs={f"user.number.{n}": b"%d" % n for n in range(20)})
    yield file(here + b"named", b"x", xattrs={"user.ümläut": "grün".encode()})
    yield file(here + b"long", b"x", xattrs={"user.long": b"0123456789" * 100})


def odd_links() -> Iterator[Entry]:
    here = TOP + b"links/"
    yield directory(here)
    yield directory(here + b"elsewhere")
    yield file(here + b"one", b"three names, two directories", mode=0o640, uid=7)
    for name in (b"two", b"elsewhere/three"):
        yield hard_link(here + name, here + b"one", mode=0o640, uid=7)
    yield file(here + b"attributed", b"with attributes", xattrs={"user.shared": b"both"})
    yield hard_link(here + b"attributed-too", here + b"attributed", xattrs={"user.shared": b"both"})
    yield symlink(here + b"absolute", "/etc/passwd")
    yield symlink(here + b"dangling", "../not/there")
    yield symlink(here + b"itself", "itself")
    yield symlink(here + b"upwards", "../../../../../../../../etc/shadow")
    yield symlink(here + b"long", b"x/" * 1000 + b"end")
    yield symlink(here + b"latin1", b"caf\xe9")


def odd_types() -> Iterator[Entry]:
    here = TOP + b"types/"
    yield directory(here)
    yield fifo(here + b"fifo", mode=0o622)
    yield character_device(here + b"null", 1, 3, mode=0o666)
    yield character_device(here + b"big-numbers", 259, 70000, mode=0o600)
    yield block_device(here + b"loop7", 7, 7, mode=0o660, gid=6)
    yield directory(here + b"empty-directory")
    yield file(here + b"empty-file")


def odd_names() -> Iterator[Entry]:
    here = TOP + b"names/"
    yield directory(here)
    names = [b"caf\xe9", b"\xff\xfe", "composed-é".encode(), "decomposed-e\u0301".encode(), "雪☃".encode()]
    names += [b" space ", b"new\nline", b"tab\t", b"back\\slash", b"quo'te\"s", b"-rf", b"*", b"...", b"%41", b"a:b@c"]
    names += [b"~", b"#", b"x" * 255, "ж".encode() * 127, b"wh.not-a-whiteout", b"CASE", b"case"]
    for name in names:
        yield file(here + name, b"named " + name)
    deep = here + b"/".join([b"deep" * 10] * 12)
    for depth in range(12):
        yield directory(here + b"/".join([b"deep" * 10] * (depth + 1)))
    yield file(deep + b"/end", b"%d bytes of path" % len(deep))


def odd_times() -> Iterator[Entry]:
    here = TOP + b"times/"
    yield directory(here, mtime_ns=12345 * SECOND)
    times = {b"epoch": 0, b"before-epoch": -1000 * SECOND, b"2040": 2208988800 * SECOND, b"2200": 7258118400 * SECOND}
    for name, mtime_ns in times.items():
        yield file(here + name, name, mtime_ns=mtime_ns)
    yield file(here + b"nanoseconds", b"precise", mtime_ns=LONG_AGO + 123456789)
    yield symlink(here + b"link", "epoch", mtime_ns=98765 * SECOND)


def odd_sizes() -> Iterator[Entry]:
    """Around the block size of tars and above the size at which files are cut into chunks."""
    here = TOP + b"sizes/"
    yield directory(here)
    for size in (1, 511, 512, 513, 4095, 4096, 4097, 65536):
        yield file(here + b"%d" % size, b"s" * size)
    yield file(here + b"zeros", bytes(40_000_000))
    yield file(here + b"counted", b"".join(b"%016x" % number for number in range(2_000_000)))


def to_be_pruned() -> Iterator[Entry]:
    """The same little tree twice: one for a tool to change, one for a hand-made layer."""
    for here in (TOP + b"by-tool/", TOP + b"by-hand/"):
        yield directory(here)
        yield file(here + b"deleted", b"gone")
        yield file(here + b"kept", b"kept", mode=0o640, uid=3)
        yield file(here + b"replaced", b"old content")
        yield file(here + b"becomes-directory", b"a file")
        yield file(here + b"becomes-symlink", b"a file")
        yield file(here + b"touched", b"same content")
        yield file(here + b"chmodded", b"same content")
        yield file(here + b"chowned", b"same content")
        yield file(here + b"attributed", b"same content", xattrs={"user.old": b"old"})
        yield symlink(here + b"symlink-becomes-directory", "directory-kept")
        yield symlink(here + b"symlink-becomes-file", "kept")
        yield file(here + b"pair-one", b"a pair")
        yield hard_link(here + b"pair-two", here + b"pair-one")
        for name in (b"kept", b"deleted", b"becomes-file", b"becomes-symlink", b"remade", b"opaque", b"chmodded"):
            yield directory(here + b"directory-" + name)
            yield file(here + b"directory-" + name + b"/old", b"old")
            yield file(here + b"directory-" + name + b"/both", b"old")
            yield directory(here + b"directory-" + name + b"/below")
            yield file(here + b"directory-" + name + b"/below/deep", b"old")
