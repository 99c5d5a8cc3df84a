import time
from datetime import UTC, datetime

import pytest

from ducc.image.reference import Reference
from ducc.wishlist.expand import expand
from ducc.wishlist.settings import MAX_TAGS, TagFilter, TooManyTags


def test_a_wildcard_becomes_the_matching_references_each_once_and_sorted():
    reference = Reference.parse("http://host:5000/a/b:1.*")
    found = expand(reference, ["1.10", "2.0", "1.9", "1.9", "latest", "1."])
    assert list(map(str, found)) == [f"http://host:5000/a/b:{tag}" for tag in ("1.", "1.10", "1.9")]


def test_without_a_wildcard_no_tag_is_looked_at():
    reference = Reference.parse("host.org/a:1")
    assert expand(reference, iter(()), TagFilter(newest=1)) == [reference]


@pytest.mark.parametrize("tag", ["../x", "1/2", "", "1*", "x" * 129, "1 2", "-1"])
def test_what_is_no_tag_never_becomes_a_reference(tag):
    assert expand(Reference.parse("host.org/a:*"), [tag]) == []


def test_the_filter_chooses_among_those_that_match():
    dates = {"1.1": datetime(2026, 1, 1, tzinfo=UTC), "1.2": datetime(2025, 1, 1, tzinfo=UTC)}
    found = expand(
        Reference.parse("host.org/a:1.*"), ["2.0", "1.1", "1.2"], TagFilter(newest=1, by="date"), dates.__getitem__
    )
    assert [reference.tag for reference in found] == ["1.1"]


def test_a_hundred_thousand_tags_and_a_nasty_pattern_take_no_time():
    started = time.process_time()
    assert expand(Reference.parse("host.org/a:" + "*a" * 40 + "*b"), ["a" * 120] * 100_000) == []
    tags = [f"v{number}" for number in range(100_000)]
    assert len(expand(Reference.parse("host.org/a:*9"), tags, TagFilter(newest=10))) == 10
    assert time.process_time() - started < 60


def test_a_wildcard_that_explodes_is_refused_by_name():
    tags = [str(number) for number in range(MAX_TAGS + 1)]
    with pytest.raises(TooManyTags, match=r"^https://host\.org/a:\*: more than 2000 tags match"):
        expand(Reference.parse("host.org/a:*"), tags)
    assert len(expand(Reference.parse("host.org/a:*"), tags[1:])) == MAX_TAGS
