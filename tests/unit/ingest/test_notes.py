"""What a layer says of those below it: answers as a plain search gives them, and the same after a journey as JSON."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.ingest.notes import LayerNotes

NAMES = st.binary(min_size=1, max_size=4).filter(lambda name: not set(name) & {0, 0x2F})
PATHS = st.lists(NAMES, max_size=3).map(lambda names: b"".join(b"/" + name for name in names))
SETS = st.sets(PATHS, max_size=6).map(lambda paths: tuple(sorted(paths)))
NOTES = st.builds(
    LayerNotes, SETS, SETS, SETS, st.lists(st.tuples(PATHS, PATHS), max_size=4).map(lambda x: tuple(sorted(x)))
)
SMALL = st.lists(st.sampled_from([b"a", b"b", b"a-", b"a\xff"]), max_size=3).map(
    lambda n: b"".join(b"/" + x for x in n)
)
FEW = st.sets(SMALL, max_size=4).map(lambda paths: tuple(sorted(paths)))


@given(NOTES)
def test_notes_survive_json_whatever_bytes_are_in_them(notes):
    assert LayerNotes.from_json(json.loads(json.dumps(notes.to_json()))) == notes


@given(PATHS)
def test_what_is_written_is_plain_text(path):
    text = LayerNotes(implied=(path,)).to_json()["implied_directories"][0]
    assert text.isascii()
    assert text.isprintable()


def test_usual_paths_are_written_as_they_are():
    path = b"/usr/lib/x86_64-linux-gnu/libstdc++.so.6 (copy) [1] 'a' \"b\" {c} ~d #e &f"
    assert LayerNotes(implied=(path,)).to_json()["implied_directories"] == [path.decode()]


def test_a_percent_sign_is_not_taken_for_an_escape():
    notes = LayerNotes(implied=(b"/100%25",), lower_links=((b"/%41", b"/A"),))
    assert LayerNotes.from_json(notes.to_json()) == notes


@given(FEW, FEW, SMALL)
def test_whether_something_is_hidden_at_or_below_a_path(whiteouts, opaque, path):
    expected = any(one.startswith(path + b"/") for one in (*whiteouts, *opaque)) or path in opaque
    assert LayerNotes(whiteouts=whiteouts, opaque=opaque).hides_below(path) == expected


@given(FEW, SMALL)
def test_whether_a_directory_above_hides_a_path(opaque, path):
    notes = LayerNotes(opaque=opaque)
    assert notes.is_hidden(path) == any(path.startswith(one + b"/") for one in opaque)
    assert notes.is_opaque(path) == (path in opaque)
    assert not replace(notes, opaque=()).is_hidden(path)


@pytest.mark.parametrize(
    ("notes", "fits"),
    [
        (LayerNotes(), True),
        (LayerNotes(implied=(b"",), whiteouts=(b"/a",), opaque=(b"/b",)), True),
        (LayerNotes(implied=(b"/a",)), False),
        (LayerNotes(implied=(b"/a",), opaque=(b"/a",)), False),
        (LayerNotes(implied=(b"/a/b",), opaque=(b"/a",)), True),
        (LayerNotes(opaque=(b"",)), False),
        (LayerNotes(lower_links=((b"/a", b"/b"),)), False),
    ],
)
def test_a_layer_fits_anywhere_if_nothing_of_it_is_as_it_is_below(notes, fits):
    assert notes.fits_anywhere() == fits
