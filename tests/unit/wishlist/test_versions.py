import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.errors import BadInput
from ducc.wishlist.versions import MalformedRange, VersionRange, order, version_of


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("3.11", "3.11"),
        ("v1.10.2", "1.10.2"),
        ("V2", "2"),
        ("20240131", "20240131"),
        ("2024-01-31", "2024"),
        ("1.2.3-rc1", "1.2.3rc1"),
        ("1.2.3rc1", "1.2.3rc1"),
        ("1.2.3-RC.2-slim", "1.2.3rc2"),
        ("1.0-beta", "1.0b0"),
        ("1.0-alpha.3", "1.0a3"),
        ("1.0-dev", "1.0.dev0"),
        ("1.0-pre", "1.0rc0"),
        ("3.11-slim", "3.11"),
        ("3.11-alpine3.19", "3.11"),
        ("3.11-bookworm", "3.11"),
        ("3.11-devel", "3.11"),
        ("11.2.p02", "11.2"),
        ("1.2_3", "1.2"),
        ("latest", None),
        ("x86_64-d20240101", None),
        ("7a3f9c1", None),
        ("release-1.2", None),
        ("version1", None),
        ("", None),
    ],
)
def test_a_tag_is_the_version_it_begins_with(tag, version):
    found = version_of(tag)
    assert (found and str(found)) == version


def test_tags_are_ordered_by_version_then_by_their_text_with_numbers_as_numbers():
    tags = [
        "latest",
        "nightly-9",
        "nightly-10",
        "1.2-rc1",
        "1.2",
        "1.2-9",
        "1.2-10",
        "v1.9",
        "1.10",
        "2024-01-31",
        "2024-02-01",
    ]
    assert sorted(tags, key=order) == tags


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2 <3", ["1.2", "1.2.0", "v2.99", "2.9-slim"], ["1.1.9", "3", "3.0.0", "latest", "2.0-rc1", "3.0-rc1"]),
        (">=1.2, <3", ["1.2", "2"], ["3"]),
        (">= 1.2   < 3", ["1.2", "2"], ["3"]),
        ("1.2", ["1.2", "1.2.7"], ["1.3", "1.20", "1.2-rc1"]),
        ("=1.2.x", ["1.2.0", "1.2.7", "1.2"], ["1.3.0"]),
        ("1.x", ["1.0", "1.99"], ["2.0"]),
        ("1.X.X", ["1.0", "1.99"], ["2.0"]),
        ("1.2.*", ["1.2.9"], ["1.3.0"]),
        ("1.2.3", ["1.2.3", "1.2.3-slim"], ["1.2.4", "1.2.30"]),
        ("!=1.2", ["1.3"], ["1.2", "1.2.5"]),
        (">1.2", ["1.3", "2"], ["1.2", "1.2.9"]),
        (">1.2.3", ["1.2.4"], ["1.2.3"]),
        ("<=1.2", ["1.2", "1.2.9", "0.1"], ["1.3"]),
        ("<=1.2.3", ["1.2.3"], ["1.2.4"]),
        ("^1.2", ["1.2", "1.9.9"], ["1.1", "2.0"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "0.2.2"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^0", ["0.9"], ["1.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0", "1.2.2"]),
        ("~1.2", ["1.2", "1.2.9"], ["1.3"]),
        ("~1", ["1.0", "1.9"], ["2.0"]),
        ("1.2 || ^3", ["1.2.1", "3.5"], ["2.0", "4.0"]),
        (">=2.0-rc1", ["2.0-rc1", "2.0-rc2", "2.0", "2.1-beta"], ["2.0-beta", "1.9"]),
        ("=2.0-rc1", ["2.0-rc1"], ["2.0-rc2", "2.0"]),
        ("*", ["1", "0.1-slim"], ["latest", "1.0-rc1"]),
        (">=v1.2", ["1.2"], ["1.1"]),
    ],
)
def test_ranges_have_the_versions_that_their_text_promises(text, inside, outside):
    wanted = VersionRange.parse(text)
    assert [tag for tag in inside + outside if wanted.has(tag)] == inside


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "||",
        "1.2 ||",
        "latest",
        ">=latest",
        ">>1",
        "1.2-slim",
        ">=1 || <",
        "=>1",
        "1..2",
        "1" * 201,
        "1\n2",
        "１",
    ],
)
def test_what_is_no_range_is_refused_in_one_line(text):
    with pytest.raises(MalformedRange) as caught:
        VersionRange.parse(text)
    assert len(str(caught.value).splitlines()) == 1


def test_ranges_are_equal_when_their_texts_are():
    assert VersionRange.parse("1.2") == VersionRange.parse("1.2")
    assert VersionRange.parse("1.2") != VersionRange.parse("1.3")


@given(st.text("0123456789.-_+abrcvdex<>=!~^|* ,", max_size=30))
def test_any_text_is_a_range_or_bad_input_and_any_tag_has_an_order(text):
    with contextlib.suppress(BadInput):
        VersionRange.parse(text).has(text)
    assert len(sorted([text, "1.0", "x"], key=order)) == 3
