"""One header block of a tar archive: 512 bytes become a `Header`, or a `Refusal`.

Four dialects share the block (POSIX.1-1988 "ustar", GNU, star, and Unix v7 without any mark). They agree on the first
half; the second half holds a prefix of the name in ustar and star, other things in GNU. Pure: no I/O.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from zlib import adler32

BLOCK_SIZE = 512
ZERO_BLOCK = bytes(BLOCK_SIZE)
NO_RECORDS: Mapping[bytes, bytes] = MappingProxyType({})

_FIELDS = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 64x 8s 8s 167s")
_NO_REST = bytes(167)
_CHECKSUM = slice(148, 156)
_LOW_BYTES = bytes(range(0x80))
_BIGGEST = 2**63 - 1


class Refusal(ValueError):
    """Why something can't be read, said where neither the layer nor the member is known yet."""


@dataclass(slots=True)
class Header:
    """What one member says about itself, extended headers included, before any policy of ours.

    *size* is that of the content; for a sparse file, of the content with its holes.
    """

    name: bytes
    flag: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    records: Mapping[bytes, bytes]
    major: int = 0
    minor: int = 0
    mtime_ns: int = 0
    gnu: bool = False


def parse_block(block: bytes) -> Header:
    """Read a header *block*; its checksum must hold and each of its numbers must be one."""
    name, mode, uid, gid, size, mtime, checksum, flag, link, magic, major, minor, rest = _FIELDS.unpack(block)
    if not _checksum_holds(block, checksum):
        raise Refusal("the header's checksum is wrong")
    header = Header(
        text(name), flag, cached_number(mode), cached_number(uid), cached_number(gid),
        number(size), cached_number(mtime), text(link), NO_RECORDS,
    )  # fmt: skip
    if magic[:6] == b"ustar\0" or magic == b"ustar  \0":
        header.major, header.minor = cached_number(major), cached_number(minor)
        header.gnu = magic[5:6] == b" "
        if rest != _NO_REST and (prefix := _prefix(header.gnu, rest)):
            header.name = prefix + b"/" + header.name
    return header


def is_header(block: bytes) -> bool:
    """Could an archive begin with *block*? The only mark that all dialects share is the checksum."""
    if len(block) != BLOCK_SIZE:
        return False
    return block == ZERO_BLOCK or _checksum_holds(block, block[_CHECKSUM])


def text(name: bytes) -> bytes:
    """A text field ends at its first NUL."""
    return name.partition(b"\0")[0]


def number(digits: bytes) -> int:
    """Octal digits between spaces and NULs, or, marked by the highest bit, big-endian two's complement."""
    octal = digits.strip(b" \0")
    if not octal.isdigit():
        if digits[0] & 0x80:
            return _binary_number(digits)
        octal = text(octal)
        if not octal:
            return 0
    try:
        if octal.isdigit():
            return int(octal, 8)
    except ValueError:
        pass
    raise Refusal(f"{_shown(digits)} is not an octal number")


cached_number = lru_cache(4096)(number)  # modes, owners, times and devices repeat from member to member


def _binary_number(digits: bytes) -> int:
    bits = 8 * len(digits) - 1
    value = int.from_bytes(digits, "big") & ((1 << bits) - 1)
    if value >> (bits - 1):
        value -= 1 << bits
    if not -_BIGGEST - 1 <= value <= _BIGGEST:
        raise Refusal(f"{_shown(digits)} does not fit into 64 bits")
    return value


def _prefix(gnu: bool, rest: bytes) -> bytes:
    """What comes before the name: nothing in GNU's dialect, 131 bytes in star's, 155 in ustar's."""
    if gnu:
        return _misplaced_prefix(rest)
    if rest[163:167] == b"tar\0":
        number(rest[131:143]), number(rest[143:155])  # access and change time: unused, but refused if malformed
        return text(rest[:131])
    return text(rest[:155])


def _misplaced_prefix(rest: bytes) -> bytes:
    """Go's writer before 1.8 put ustar's prefix into a GNU header; where that shows, Go's reader takes it."""
    try:
        for time in (rest[:12], rest[12:24]):
            if time[0]:
                number(time)
    except Refusal:
        prefix = text(rest[:155])
        return prefix if prefix.isascii() else b""
    return b""


def _checksum_holds(block: bytes, checksum: bytes) -> bool:
    """The sum of all bytes, those of the checksum counted as spaces; some old writers summed signed bytes.

    The low half of Adler-32 is the sum of bytes plus one. It is exact up to 256 bytes, and far faster than `sum`.
    """
    if checksum[0] & 0x80:
        return False  # the one number that is never binary
    try:
        claimed = number(checksum)
    except Refusal:
        return False
    field = adler32(checksum) & 0xFFFF
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - field - 1 + 8 * 0x20
    if claimed == total:
        return True
    others = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    return claimed == total - 256 * len(others.translate(None, _LOW_BYTES))


def _shown(digits: bytes) -> str:
    return repr(digits)[1:]
