"""Sparse files (B42): exact content with zeros in the holes, or a refusal that allocates nothing."""

import resource
import time

import pytest

from ducc.layer.decompress import LayerTooLarge
from ducc.layer.tar import MalformedArchive
from tests.unit.layer.archives import GNU, archive, binary, header, member, padded, pax, read, reader_of

CONTENT = bytes(1000) + b"first" + bytes(2000) + b"second" + bytes(300)
STORED = b"first" + b"second"
MAP = [(1000, 5), (3005, 6)]
SIZE = len(CONTENT)


def old(pairs: list[tuple[int, int]], size: int = SIZE, stored: bytes = STORED, magic: bytes = GNU) -> bytes:
    """Type S: four extents in the header, 21 in each block behind it."""
    head, rest = pairs[:4], pairs[4:]
    patch = {386: _table(head), 482: bytes([bool(rest)]), 483: binary(size)}
    blocks = header(b"x", b"S", len(stored), magic=magic, patch=patch)
    while rest:
        block, rest = rest[:21], rest[21:]
        blocks += _table(block).ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7)
    return blocks + padded(stored)


def _table(pairs: list[tuple[int, int]]) -> bytes:
    return b"".join(binary(offset) + binary(length) for offset, length in pairs)


def pax_00(pairs: list[tuple[int, int]], size: int = SIZE, count: int | None = None) -> bytes:
    records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % (count or len(pairs)))]
    for offset, length in pairs:
        records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return pax(records) + member(b"x", STORED)


def pax_01(pairs: list[tuple[int, int]], size: int = SIZE) -> bytes:
    numbers = b",".join(b"%d,%d" % pair for pair in pairs)
    return pax({
        b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"1", b"GNU.sparse.name": b"x",
        b"GNU.sparse.size": b"%d" % size, b"GNU.sparse.numblocks": b"%d" % len(pairs), b"GNU.sparse.map": numbers,
    }) + member(b"GNUSparseFile.0/x", STORED)  # fmt: skip


def pax_10(pairs: list[tuple[int, int]], size: int = SIZE) -> bytes:
    lines = b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs)
    return pax_10_with(padded(lines) + STORED, size)


def pax_10_with(content: bytes, size: int = SIZE) -> bytes:
    return pax({
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"x",
        b"GNU.sparse.realsize": b"%d" % size,
    }) + member(b"GNUSparseFile.0/x", content)  # fmt: skip


FORMS = {"old GNU": old, "pax 0.0": pax_00, "pax 0.1": pax_01, "pax 1.0": pax_10}


@pytest.mark.parametrize("form", FORMS)
def test_content_has_zeros_in_its_holes(form: str) -> None:
    layer = read(archive(FORMS[form](MAP), member(b"next", b"n")))
    assert layer.members[0].size == SIZE
    assert layer.contents == {b"/x": CONTENT, b"/next": b"n"}


@pytest.mark.parametrize("form", FORMS)
def test_content_comes_in_pieces_or_not_at_all(form: str) -> None:
    reader = reader_of(archive(FORMS[form](MAP), FORMS[form](MAP), member(b"next", b"n")))
    contents = []
    for number, _ in enumerate(reader):
        if number != 1:  # the second is passed over
            contents.append(b"".join(reader.pieces(7)))
    assert contents == [CONTENT, b"n"]


@pytest.mark.parametrize("form", FORMS)
def test_many_extents(form: str) -> None:
    """More than fit into a header, and into one block behind it."""
    pairs = [(10 * i, 1) for i in range(len(STORED))] + [(5000, 0)] * 60
    expected = bytearray(SIZE + 5000)
    for (offset, _), value in zip(pairs, STORED, strict=False):
        expected[offset] = value
    assert read(archive(FORMS[form](pairs, size=SIZE + 5000))).contents == {b"/x": bytes(expected)}


BAD_MAPS = {
    "not in order": ([(3005, 6), (1000, 5)], SIZE),
    "overlapping": ([(1000, 6), (1005, 5)], SIZE),
    "past the end": ([(1000, 5), (SIZE - 5, 6)], SIZE),
    "more than is stored": ([(1000, 5), (2000, 7)], SIZE),
    "less than is stored": ([(1000, 5), (2000, 5)], SIZE),
    "negative length": ([(1000, -5), (2000, 16)], SIZE),
    "negative offset": ([(-1, 5), (2000, 6)], SIZE),
    "beyond 64 bits": ([(1000, 5), (2**63 - 1, 6)], SIZE),
    "negative size": ([(1000, 5), (3005, 6)], -1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", BAD_MAPS)
def test_maps_that_make_no_sense_are_refused(form: str, case: str) -> None:
    pairs, size = BAD_MAPS[case]
    with pytest.raises(MalformedArchive):
        read(archive(FORMS[form](pairs, size)))


@pytest.mark.parametrize("form", FORMS)
def test_enormous_files_are_refused_before_they_are_read(form: str) -> None:
    with pytest.raises(LayerTooLarge):
        read(archive(FORMS[form](MAP, 2**62)))


def test_holes_count_towards_the_limit_of_the_layer() -> None:
    with pytest.raises(LayerTooLarge, match="together"):
        read(archive(pax_01(MAP), pax_01(MAP)), max_size=2 * SIZE - 1)


SPARSE = {b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"1"}
MALFORMED = {
    "unknown version": (pax({b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0"}) + member(b"x"), "unknown"),
    "half a version": (pax({b"GNU.sparse.major": b"1"}) + member(b"x"), "unknown"),
    "no count": (pax({**SPARSE, b"GNU.sparse.map": b"0,1"}) + member(b"x"), "64 bits"),
    "wrong count": (pax({**SPARSE, b"GNU.sparse.map": b"0,1", b"GNU.sparse.numblocks": b"2"}) + member(b"x"), "length"),
    "count of 10^9": (pax_00(MAP, count=10**9), "length"),
    "no numbers": (pax({**SPARSE, b"GNU.sparse.map": b"a,b", b"GNU.sparse.numblocks": b"1"}) + member(b"x"), "64 bits"),
    "offsets only": (pax([(b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"0")]) + member(b"x"), "out of order"),
    "comma in a number": (pax({b"GNU.sparse.offset": b"1,2"}) + member(b"x"), "out of order"),
    "1.0: 10^9 extents": (pax_10_with(padded(b"1000000000\n")), "too long"),
    "1.0: negative count": (pax_10_with(padded(b"-1\n")), "too long"),
    "1.0: map longer than the file": (pax_10_with((b"1000\n" + b"0\n" * 300)[:512]), "longer than the file"),
    "1.0: map not a whole block": (pax_10_with(b"0\n"), "longer than the file"),
    "1.0: no numbers": (pax_10_with(bytes(1024)), "not made of numbers"),
    "1.0: endless map": (pax_10_with(b"262144\n" + b"0\n" * (1 << 20)), "too long"),
    "old: header is not GNU's": (old(MAP, magic=b"ustar\x0000"), "not GNU's"),
    "old: endless map": (old([(0, 0)] * 50_000), "too long"),
    "old: ends inside the map": (old([(0, 0)] * 30)[: 512 + 100], "inside a header"),
    "directory": (pax({**SPARSE, b"GNU.sparse.numblocks": b"0"}) + member(b"x", flag=b"5"), "not a file"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str) -> None:
    blocks, reason = MALFORMED[case]
    with pytest.raises(MalformedArchive, match=reason):
        read(blocks if "ends inside" in case else archive(blocks))


def test_a_hole_costs_no_memory() -> None:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader = reader_of(archive(pax_10(MAP, 4 << 30)))
    next(iter(reader))
    assert sum(map(len, reader.pieces(1 << 20))) == 4 << 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert time.monotonic() - start < 60
