"""Where big contents are cut: by the content alone, within bounds, and a small change moves few cuts."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducc.ingest import chunk

LEAST, MEAN, MOST = 256, 1024, 4096  # instead of 4, 8 and 16 MiB


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"MIN_BYTES": LEAST, "AVERAGE_BYTES": MEAN, "MAX_BYTES": MOST}.items():
            patch.setattr(chunk, name, value)
        yield


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


CONTENTS = st.one_of(
    st.builds(noise, st.integers(0, 5), st.integers(0, 30_000)),
    st.builds(lambda size: bytes(size), st.integers(0, 20_000)),
    st.binary(max_size=300),
)


def in_pieces(content: bytes, cuts: list[int]) -> list[memoryview]:
    ends = sorted(cut % (len(content) + 1) for cut in cuts)
    return [memoryview(content)[start:end] for start, end in itertools.pairwise([0, *ends, len(content)])]


@given(CONTENTS, st.lists(st.integers(0, 40_000), max_size=12))
@settings(max_examples=200, deadline=None)
def test_cuts_do_not_depend_on_how_the_content_arrives(content, cuts):
    assert list(chunk.chunks(in_pieces(content, cuts))) == list(chunk.chunks([content]))


@given(CONTENTS)
@settings(max_examples=200, deadline=None)
def test_chunks_are_the_content_and_within_bounds(content):
    found = list(chunk.chunks([content]))
    assert b"".join(found) == content
    assert all(LEAST <= len(one) <= MOST for one in found[:-1])
    assert all(0 < len(one) <= MOST for one in found)


def test_no_content_is_no_chunk():
    assert list(chunk.chunks([])) == list(chunk.chunks([b"", b""])) == []


def test_byte_by_byte_is_as_good_as_at_once():
    content = noise(1, 9_000)
    assert list(chunk.chunks(content[at : at + 1] for at in range(len(content)))) == list(chunk.chunks([content]))


def test_an_insertion_at_the_front_leaves_most_chunks_as_they_were():
    content = noise(2, 200_000)
    before, after = (set(chunk.chunks([one])) for one in (content, b"new" + content))
    assert len(before & after) > 0.8 * len(before)


def test_at_most_one_chunk_and_one_piece_are_held():
    taken = 0

    def pieces():
        nonlocal taken
        for number in range(100):
            taken += 1000
            yield noise(number, 1000)

    given_out = 0
    for one in chunk.chunks(pieces()):
        given_out += len(one)
        assert taken - given_out <= MOST + 1000
    assert given_out == 100_000
