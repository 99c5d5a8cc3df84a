from dataclasses import replace

import pytest

from ducc.cvmfs.manifest import Manifest, ManifestMalformed, WrongRootPath

MANIFEST = Manifest(
    root_hash=bytes(range(20)),
    root_size=16384,
    ttl_seconds=240,
    revision=7,
    timestamp=1_700_000_000,
    fqrn="repo.example.org",
    certificate=b"c" * 20,
    history=b"h" * 20,
    metainfo=b"m" * 20,
    reflog=b"r" * 20,
)
TEXT = b"""\
C000102030405060708090a0b0c0d0e0f10111213
B16384
Rd41d8cd98f00b204e9800998ecf8427e
D240
S7
Gyes
Ano
Nrepo.example.org
X6363636363636363636363636363636363636363
H6868686868686868686868686868686868686868
T1700000000
M6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d
Y7272727272727272727272727272727272727272
"""


def without(letter):
    return b"".join(line for line in TEXT.splitlines(keepends=True) if line[:1] != letter)


def with_line(line):
    return without(line[:1]) + line + b"\n"


def test_the_text_is_what_stock_programs_write():
    assert MANIFEST.encode() == TEXT


def test_reading_gives_back_what_was_written():
    assert Manifest.parse(TEXT) == MANIFEST
    bare = replace(MANIFEST, certificate=None, history=None, metainfo=None, reflog=None, garbage_collectable=False)
    assert Manifest.parse(bare.encode()) == bare


def test_lines_may_come_in_any_order_and_unknown_letters_are_ignored():
    assert Manifest.parse(b"".join(sorted((TEXT + b"Zwhatever\nL\n").splitlines(keepends=True)))) == MANIFEST


def test_what_follows_the_rule_is_not_read():
    assert Manifest.parse(TEXT + b"--\nanything\n\xff\x00--\nS9\n") == MANIFEST


@pytest.mark.parametrize("letter", [b"B", b"T", b"X", b"H", b"M", b"Y", b"G", b"A"])
def test_some_fields_may_be_missing(letter):
    Manifest.parse(without(letter))


@pytest.mark.parametrize("letter", [b"C", b"D", b"S", b"N", b"R"])
def test_others_may_not(letter):
    with pytest.raises(ManifestMalformed, match=f"field {letter.decode()} is missing"):
        Manifest.parse(without(letter))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"--\n",
        b"<!DOCTYPE html>\n<html><body>Please log in to the hotel's network</body></html>\n",
        TEXT[:-1],
        TEXT[:200],
        TEXT + b"S8\n",
        TEXT + b"\n",
        TEXT + b"\xff\xfe\n",
        TEXT + b"Z" * 100_000 + b"\n",
        with_line(b"S-1"),
        with_line(b"S"),
        with_line(b"S1.5"),
        with_line(b"S" + b"9" * 30),
        with_line(b"Dsoon"),
        with_line(b"C" + b"0" * 39),
        with_line(b"C" + b"0" * 40 + b"C"),
        with_line(b"C" + b"A" * 40),
        with_line(b"X" + b"0" * 40 + b"-shake128"),
        with_line(b"Gperhaps"),
    ],
)
def test_what_is_no_manifest_is_refused(raw):
    with pytest.raises(ManifestMalformed):
        Manifest.parse(raw)


def test_the_manifest_of_something_that_is_no_root_is_refused():
    with pytest.raises(WrongRootPath):
        Manifest.parse(with_line(b"R" + b"0" * 32))
