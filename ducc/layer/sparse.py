"""Sparse files: where the stored pieces of a file lie; everything between them is zeros.

GNU tar has four ways to write such a map: behind the header, in blocks of its own (type `S`), as pax records (versions
0.0 and 0.1), and at the beginning of the content (1.0). A map is accepted only if its extents are in order, inside the
file, and account for every stored byte. Then a hole costs nothing until somebody reads it. Pure: blocks come by a call.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from ducc.layer.block import BLOCK_SIZE, Header, Refusal, number
from ducc.layer.pax import integer

Extent = tuple[int, int]  # offset in the file, length
NextBlock = Callable[[], bytes]

MAX_MAP_SIZE = 1 << 20  # bytes of archive

_ENTRY_SIZE = 24
_INTEGER_SIZE = 20
_NO_VERSION = (b"", b"")
_VERSIONS_IN_RECORDS = ((b"0", b"0"), (b"0", b"1"))
_VERSION_IN_CONTENT = (b"1", b"0")


def read_old_map(block: bytes, header: Header, next_block: NextBlock) -> list[Extent]:
    """The map that begins in a type `S` header's own *block*; *header* gets the size with holes."""
    if not header.gnu:
        raise Refusal("a sparse file (type S) whose header is not GNU's")
    header.size = number(block[483:495])
    extents = _entries(block[386:482])
    extended = block[482]
    while extended:
        if len(extents) * _ENTRY_SIZE > MAX_MAP_SIZE:
            raise Refusal("the map of a sparse file is too long")
        block = next_block()
        extents += _entries(block[:504])
        extended = block[504]
    return extents


def read_pax_map(header: Header, next_block: NextBlock) -> list[Extent] | None:
    """The map that *header*'s pax records hold or announce, none if it is no sparse file.

    *header* gets the true name and the size with holes; *next_block* reads from the content.
    """
    records = header.records
    version = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"")
    listed = records.get(b"GNU.sparse.map", b"")
    if version == _NO_VERSION and not listed:
        return None
    if name := records.get(b"GNU.sparse.name"):
        header.name = name
    if size := records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize"):
        header.size = integer(size)
    if version == _VERSION_IN_CONTENT:
        return _map_in_content(next_block)
    if version == _NO_VERSION or version in _VERSIONS_IN_RECORDS:
        return _map_in_records(listed, records.get(b"GNU.sparse.numblocks", b""))
    raise Refusal("an unknown version of GNU's sparse files")


def check_map(extents: list[Extent], size: int, stored: int) -> None:
    """Refuse a map unless its *extents* fit into *size* bytes in order, and are *stored* bytes together."""
    if size < 0:
        raise Refusal("a negative size")
    end = 0
    for offset, length in extents:
        if length < 0 or offset < end or offset + length > size:
            raise Refusal("the map of a sparse file is out of order or leaves the file")
        end = offset + length
    if sum(length for _, length in extents) != stored:
        raise Refusal("the map of a sparse file does not account for its stored bytes")


def _entries(table: bytes) -> list[Extent]:
    """The pairs of numbers in *table*, up to the first that is empty."""
    entries = []
    for at in range(0, len(table), _ENTRY_SIZE):
        if not table[at]:
            break
        entries.append((number(table[at : at + 12]), number(table[at + 12 : at + 24])))
    return entries


def _map_in_records(listed: bytes, count: bytes) -> list[Extent]:
    numbers = [integer(digits) for digits in listed.split(b",")] if listed else []
    if len(numbers) != 2 * integer(count):
        raise Refusal("the map of a sparse file has not the length that it says")
    return _pairs(numbers)


def _map_in_content(next_block: NextBlock) -> list[Extent]:
    """How many extents, then each one's offset and length: decimal lines, padded to whole blocks."""
    numbers = _lines(next_block)
    count = next(numbers)
    if not 0 <= count <= MAX_MAP_SIZE // 4:
        raise Refusal("the map of a sparse file is too long")
    return _pairs(list(islice(numbers, 2 * count)))


def _lines(next_block: NextBlock) -> Iterator[int]:
    """Integers, one a line. A block is read only when its numbers are asked for."""
    rest = b""
    for _ in range(MAX_MAP_SIZE // BLOCK_SIZE):
        *lines, rest = (rest + next_block()).split(b"\n")
        yield from map(integer, lines)
        if len(rest) > _INTEGER_SIZE:
            raise Refusal("the map of a sparse file is not made of numbers")
    raise Refusal("the map of a sparse file is too long")


def _pairs(numbers: list[int]) -> list[Extent]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))
