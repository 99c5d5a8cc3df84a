import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.image.reference import Reference
from ducc.wishlist.expand import expand, matches


@pytest.mark.parametrize(
    ("pattern", "tag", "fits"),
    [
        ("*", "anything", True),
        ("1.2*", "1.2", True),
        ("1.2*", "1.2.3", True),
        ("1.2*", "1x2", False),
        ("1.2*", "01.2", False),
        ("*-py3", "1-py3", True),
        ("*-py3", "1-py30", False),
        ("a*b", "ab", True),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        ("*a*", "bab", True),
        ("*a*a*", "a", False),
        ("a**b", "ab", True),
        ("1", "1", True),
        ("1", "11", False),
        ("[a-z]*", "b", False),
        ("?*", "b", False),
        ("v+*", "vv", False),
    ],
)
def test_only_the_star_is_special(pattern, tag, fits):
    assert matches(pattern, tag) is fits


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_the_meaning_of_the_star_is_the_shells(pattern, tag):
    assert matches(pattern, tag) == fnmatch.fnmatchcase(tag, pattern)


def test_a_wildcard_becomes_the_matching_references_each_once_and_sorted():
    reference = Reference.parse("http://host:5000/a/b:1.*")
    found = expand(reference, ["1.10", "2.0", "1.9", "1.9", "latest", "1."])
    assert list(map(str, found)) == [f"http://host:5000/a/b:{tag}" for tag in ("1.", "1.10", "1.9")]


def test_without_a_wildcard_no_tag_is_looked_at():
    reference = Reference.parse("host/a:1")
    assert expand(reference, iter(())) == [reference]


@pytest.mark.parametrize("tag", ["../x", "1/2", "", "1*", "x" * 129, "1 2", "-1"])
def test_what_is_no_tag_never_becomes_a_reference(tag):
    assert expand(Reference.parse("host/a:*"), [tag]) == []


def test_a_hundred_thousand_tags_and_a_nasty_pattern_take_no_time():
    started = time.process_time()
    assert expand(Reference.parse("host/a:" + "*a" * 40 + "*b"), ["a" * 120] * 100_000) == []
    assert expand(Reference.parse("host/a:*9"), (f"v{number}" for number in range(100_000)))
    assert time.process_time() - started < 5
