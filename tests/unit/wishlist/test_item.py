from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.image.manifest import Platform
from ducc.wishlist.item import ITEM_KEYS, TAG_KEYS
from ducc.wishlist.parse import parse_wishlist
from ducc.wishlist.settings import ALL_PLATFORMS, FOREVER, TagFilter, WishSettings
from ducc.wishlist.versions import VersionRange
from ducc.wishlist.wish import BadSetting, DuplicateWish, MalformedWishlist, Wishlist, WrongType

HEAD = "cvmfs_repo: unpacked.example.org\n"


def read(text: str) -> Wishlist:
    return parse_wishlist((HEAD + text).encode(), "w.yaml")


def item(setting: str, image: str = "host.org/a:1.*") -> str:
    return f"input:\n  - image: {image}\n    {setting}\n"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("platforms: all", {"platforms": ALL_PLATFORMS}),
        ("platforms: [linux/arm64]", {"platforms": (Platform("linux", "arm64"),)}),
        (
            "platforms: [linux/arm64, linux/arm/v7, linux/aarch64]",
            {"platforms": (Platform("linux", "arm64"), Platform("linux", "arm", "v7"))},
        ),
        ("products: [layers]", {"products": frozenset({"layers"})}),
        ("products: [flat, layers]", {"products": frozenset({"layers", "flat"})}),
        ("credentials: robot-1", {"credentials": "robot-1"}),
        ("keep: forever", {"keep": FOREVER}),
        ("keep: 90d", {"keep": timedelta(days=90)}),
        ("keep: 12h", {"keep": timedelta(hours=12)}),
        ("keep: 2w", {"keep": timedelta(days=14)}),
        ("priority: 10", {"priority": 10}),
        ("priority: -1000", {"priority": -1000}),
        ("ignore_errors: true", {"ignore_errors": True}),
        ("ignore_errors: no", {"ignore_errors": False}),
        (
            "tags: {newest: 5, by: date, semver: '>=1.2 <3', max_age: 90d, exclude: ['*-rc*', '1.0']}",
            {"tags": TagFilter(5, "date", VersionRange.parse(">=1.2 <3"), timedelta(days=90), ("*-rc*", "1.0"))},
        ),
        ("tags: {}", {}),
    ],
)
def test_a_setting_is_read_from_its_item_or_from_the_defaults(setting, value):
    wanted = WishSettings(**value)
    (wish,) = read(item(setting)).wishes
    assert wish.settings == wanted
    (wish,) = read(f"defaults:\n  {setting}\ninput: ['host.org/a:1.*']\n").wishes
    assert wish.settings == wanted


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("platforms: linux/amd64", "4:16: platforms (unless it is: all) must be a list of strings, not a string"),
        ("platforms: []", "4:16: platforms (unless it is: all) must be a list of strings, not empty"),
        ("platforms: [amd64]", "4:17: platforms: amd64: not a platform"),
        ("platforms: [linux/amd64, linux/amd64]", "4:30: platforms (unless it is: all): 'linux/amd64' stands here"),
        ("products: [thin]", "4:16: products: 'thin' is none of layers, flat"),
        ("products:", "4:14: products must be a list of strings, not empty"),
        ("credentials: 'me:s3cret'", "4:18: credentials: write the name"),
        ("credentials: 7", "4:18: credentials must be a string, not an integer"),
        ("keep: 90", "4:11: keep must be hours, days or weeks"),
        ("keep: 0d", "4:11: keep must be hours"),
        ("keep: 999999d", "4:11: keep must be hours"),
        ("priority: high", "4:15: priority must be an integer from -1000 to 1000"),
        ("priority: 1001", "4:15: priority must be an integer"),
        ("priority: 0x10", "4:15: priority must be an integer"),
        ("priority: 012", "4:15: priority must be an integer"),
        ("priority: !!int [1]", "4:15: priority must be an integer"),
        ("ignore_errors: 1", "4:20: ignore_errors must be true or false, not an integer"),
        ("ignore_errors: !!bool {}", "4:20: ignore_errors must be true or false"),
        ("ignore_errors: !!bool maybe", "4:20: ignore_errors must be true or false"),
        ("tags: [1.2]", "4:11: tags must be a mapping of keys to values, not a list"),
        ("tags: {latest: 1}", "4:12: unknown key 'latest': tags has newest, by, semver, max_age, exclude"),
        ("tags: {newest: 0}", "4:20: newest must be an integer from 1 to 100000"),
        ("tags: {by: size}", "4:16: by: 'size' is none of version, date"),
        ("tags: {semver: 1.2}", "4:20: semver must be a string, not a decimal number"),
        ("tags: {semver: latest}", "4:20: semver: latest: not a comparison"),
        ("tags: {max_age: forever}", "4:21: max_age must be hours"),
        ("tags: {exclude: '*-rc*'}", "4:21: exclude must be a list of strings, not a string"),
        ("tags: {exclude: ['[a-z]*']}", "4:22: exclude: '[a-z]*' is not a tag"),
        ("arch: amd64", "4:5: unknown key 'arch': an item has image, platforms, products, credentials, keep"),
        ("image: x", "4:5: the key 'image' stands here for the second time"),
    ],
)
def test_a_setting_that_cannot_be_meant_breaks_its_item_alone_and_tells_the_place(setting, said):
    wishlist = read(item(setting) + "  - host.org/good:1\n")
    assert [wish.reference.repository for wish in wishlist.wishes] == ["good"]
    (broken,) = wishlist.broken
    assert isinstance(broken.error, BadSetting)
    assert str(broken).startswith(f"w.yaml:{said}")
    assert "s3cret" not in str(broken)
    assert (broken.text, broken.last_line) == ("host.org/a:1.*", 4)


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("{platforms: all}", BadSetting, "3:5: image is missing"),
        ("{image: 3.10}", BadSetting, "3:13: image must be a string, not a decimal number"),
        ("{image: host.org/a:1, tags: {newest: 1}}", BadSetting, "3:33: tags choose among those that match a *"),
        ("{image: host.org/A:1}", BadSetting, ""),
        ("{image: host.org/a:1, keep: x, priority: x}", BadSetting, "3:33: keep must"),
        ("[host.org/a:1]", WrongType, "3:5: an image reference must be a string, not a list"),
        ("!!bool {image: host.org/a:1}", None, ""),
    ],
)
def test_an_item_is_an_image_with_settings(line, error, said):
    wishlist = read(f"input:\n  - {line}\n")
    if error is None:
        assert len(wishlist.wishes) == 1
        return
    (broken,) = wishlist.broken
    assert f"w.yaml:{said}" in str(broken)
    assert len(str(broken).splitlines()) == 1


SCALARS = [
    "a",
    "1",
    "1.5",
    "true",
    "null",
    "[]",
    "{}",
    "[a, a]",
    "{a: b}",
    "!!int x",
    "!!bool [a]",
    "!!str {}",
    "''",
    "all",
]


@given(st.dictionaries(st.sampled_from([*ITEM_KEYS, "x"]), st.sampled_from([*SCALARS, "host.org/a:*"]), max_size=4))
def test_any_item_is_a_wish_or_one_line_that_says_why_not(values):
    written = ", ".join(f"{key}: {value}" for key, value in values.items())
    wishlist = read(f"input:\n  - {{{written}}}\n")
    assert len(wishlist.wishes) + len(wishlist.broken) == 1
    assert all(len(str(broken).splitlines()) == 1 for broken in wishlist.broken)


@given(st.dictionaries(st.sampled_from([*TAG_KEYS, "x"]), st.sampled_from(SCALARS), max_size=3))
def test_any_choice_of_tags_is_one_or_breaks_its_item_alone(values):
    written = ", ".join(f"{key}: {value}" for key, value in values.items())
    wishlist = read(f"input:\n  - {{image: 'a:*', tags: {{{written}}}}}\n")
    assert len(wishlist.wishes) + len(wishlist.broken) == 1


def test_all_faults_of_an_item_are_told_in_one_line():
    (broken,) = read("input:\n  - {image: host.org/a:1, keep: x, priority: x}\n").broken
    assert "keep must" in str(broken)
    assert "priority must" in str(broken)


def test_a_fault_in_the_defaults_concerns_all():
    with pytest.raises(MalformedWishlist, match=r"w.yaml:2:23: keep must be hours"):
        read("defaults:      {keep: soon}\ninput: []\n")
    with pytest.raises(MalformedWishlist, match="unknown key 'image': defaults has platforms"):
        read("defaults: {image: x}\ninput: []\n")


def test_an_items_settings_win_over_the_defaults_each_as_a_whole():
    text = "defaults: {priority: 5, keep: forever, tags: {newest: 5, by: date}}\n"
    (wish,) = read(text + item("tags: {newest: 2}")).wishes
    assert wish.settings == WishSettings(priority=5, keep=FOREVER, tags=TagFilter(newest=2))


@pytest.mark.parametrize(
    ("globs", "ignored"),
    [
        ("['*/nightly:*']", ["nightly"]),
        ("['host.org/good:1']", ["good"]),
        ("['https://host.org/*:1']", ["good"]),
        ("['*good:?', '*[y]:2']", ["good", "nightly"]),
        ("['good']", []),
        ("[]", []),
        ("", []),
    ],
)
def test_ignored_errors_are_named_as_written_or_in_full_by_the_shells_patterns(globs, ignored):
    wishes = read(f"ignoreErrors: {globs}\ninput:\n  - host.org/good:1\n  - {{image: 'host.org/nightly:2'}}\n").wishes
    assert [wish.reference.repository for wish in wishes if wish.settings.ignore_errors] == ignored


def test_a_pattern_of_ignored_errors_that_is_no_string_is_a_fault():
    with pytest.raises(MalformedWishlist, match=r"w.yaml:2:16: ignoreErrors must be a string"):
        read("ignoreErrors: [1]\ninput: []\n")
    with pytest.raises(MalformedWishlist, match="at most 300"):
        read(f"ignoreErrors: ['{'*' * 301}']\ninput: []\n")


def test_items_with_and_without_settings_are_duplicates_of_each_other():
    wishlist = read("input:\n  - docker.io/ubuntu\n  - {image: 'ubuntu:latest', keep: forever}\n")
    (broken,) = wishlist.broken
    assert isinstance(broken.error, DuplicateWish)
    assert broken.error.first_line == 3


def test_an_item_knows_the_lines_it_stands_on():
    wishlist = read(
        "defaults:\n  keep: 1d\n  tags:\n    newest: 1\n\ninput:\n  - a\n\n  - image: b\n    tags: {newest: 1,\n"
        "      by: date}\n    # end\n  - {image: c,\n     keep: 2d}\n  - image: d:*\n    tags:\n      exclude:\n"
        "        - x\n\n"
    )
    lines = [(one.line, one.last_line) for one in (*wishlist.wishes, *wishlist.broken)]
    assert sorted(lines) == [(8, 8), (11, 12), (14, 15), (16, 19)]
    assert wishlist.shared_lines == (3, 5)
