"""Archives made by hand, byte by byte, so that a test can say what no archiver would write.

archive(member(b"a", b"content"), pax({b"path": b"b"}), member(b"x"))   blocks, then the end-of-archive
read(archive(...))                                                     what `LayerReader` makes of it
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ducc.image.digest import Digest
from ducc.layer.entries import Kind, LayerReader, Member
from ducc.layer.stream import VerifiedStream

END = bytes(1024)
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \x00", bytes(8)


def header(
    name: bytes,
    flag: bytes = b"0",
    size: int | bytes = 0,
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = USTAR,
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    patch: Mapping[int, bytes] | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """One header block. Numbers given as bytes are written as they are; *patch* overwrites at offsets."""
    block = bytearray(512)
    fields = (
        (0, name), (100, _octal(mode, 7)), (108, _octal(uid, 7)), (116, _octal(gid, 7)), (124, _octal(size, 11)),
        (136, _octal(mtime, 11)), (156, flag), (157, link), (257, magic), (329, _octal(major, 7)),
        (337, _octal(minor, 7)), (345, prefix), *(patch or {}).items(),
    )  # fmt: skip
    for offset, value in fields:
        block[offset : offset + len(value)] = value
    assert len(block) == 512
    block[148:156] = b" " * 8
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes, content: bytes = b"", flag: bytes = b"0", **fields: object) -> bytes:
    return header(name, flag, **{"size": len(content), **fields}) + padded(content)


def pax(records: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], flag: bytes = b"x") -> bytes:
    pairs = records.items() if isinstance(records, Mapping) else records
    return pax_body(b"".join(record(key, value) for key, value in pairs), flag)


def pax_body(body: bytes, flag: bytes = b"x") -> bytes:
    return member(b"PaxHeaders/x", body, flag)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while length != len(key) + len(value) + 3 + len(str(length)):
        length = len(key) + len(value) + 3 + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    return member(b"././@LongLink", name + b"\0", flag, magic=GNU)


def binary(value: int, width: int = 12) -> bytes:
    """GNU's base-256: big-endian two's complement, the highest bit set."""
    field = bytearray((value & ((1 << 8 * width) - 1)).to_bytes(width, "big"))
    field[0] |= 0x80
    return bytes(field)


def _octal(value: int | bytes, digits: int) -> bytes:
    return value if isinstance(value, bytes) else b"%0*o\0" % (digits, value)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def archive(*parts: bytes) -> bytes:
    return b"".join(parts) + END


@dataclass
class Layer:
    members: list[Member]
    contents: dict[bytes, bytes]
    dropped: Counter[str]

    def only(self) -> Member:
        (member,) = self.members
        return member

    def paths(self) -> list[bytes]:
        return [member.path for member in self.members]


def reader_of(blob: bytes, tar: bytes | None = None, **limits: int) -> LayerReader:
    """A reader of *blob*, which holds *tar*; both with the digests they have."""
    stream = VerifiedStream(io.BytesIO(blob), Digest.of(blob), len(blob), "blob")
    return LayerReader(stream, Digest.of(blob if tar is None else tar), **limits)


def read(blob: bytes, tar: bytes | None = None, **limits: int) -> Layer:
    reader = reader_of(blob, tar, **limits)
    members, contents = [], {}
    for found in reader:
        members.append(found)
        if found.kind is Kind.FILE:
            contents[found.path] = reader.content()
    return Layer(members, contents, reader.dropped)
