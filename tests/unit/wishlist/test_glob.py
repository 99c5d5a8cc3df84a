import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.wishlist.glob import matches


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
