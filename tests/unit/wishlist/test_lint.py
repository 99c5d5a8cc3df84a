from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ducc.registry.client import Registry
from ducc.transport import Transport
from ducc.wishlist.difference import read_diff
from ducc.wishlist.lint import Finding, check_offline, check_online
from ducc.wishlist.parse import parse_wishlist
from ducc.wishlist.sources import Source
from tests import builders
from tests.fakes.registry import FakeRegistry, fake_registry

GOOD = "cvmfs_repo: a.b\ndefaults: {keep: 1d}\ninput:\n"
IMAGE = builders.Image([builders.Layer.of(builders.file("a", b"x"))])
ARM = builders.Image([builders.Layer.of(builders.file("b", b"x"))], platform={"os": "linux", "architecture": "arm64"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.yaml"


def offline(path, text: str, *changed: int):
    path.write_text(text)
    diff = "".join(f"@@ -0,0 +{line} @@\n+x\n" for line in changed)
    lines = read_diff(f"--- a/w.yaml\n+++ b/w.yaml\n{diff}") if changed else None
    return check_offline(Source.parse(str(path)), lines)


def places(findings) -> list[tuple[int, int, str]]:
    return [(finding.line, finding.column, finding.kind) for finding in findings]


# --- offline


def test_every_fault_is_told_at_its_place(path):
    checked = offline(path, GOOD + "  - host.org/A\n  - host.org/a\n  - {image: host.org/b, keep: x}\n  - host.org/a\n")
    assert places(checked.findings) == [
        (4, 5, "MalformedReference"),
        (6, 31, "BadSetting"),
        (7, 5, "DuplicateWish"),
    ]
    assert {finding.file for finding in checked.findings} == {str(path)}
    assert [wish.line for wish in checked.wishes] == [5]


def test_a_wishlist_that_is_broken_as_a_whole_has_all_its_faults(path):
    assert places(offline(path, "version: 2\ninput: 7\n").findings) == [
        (1, 1, "MalformedWishlist"),
        (1, 10, "MalformedWishlist"),
        (2, 8, "MalformedWishlist"),
    ]


def test_a_wishlist_that_is_not_there_is_a_finding(path):
    (finding,) = check_offline(Source.parse(str(path))).findings
    assert (finding.line, finding.kind) == (1, "UnreadableWishlist")
    assert finding.text == "cannot be read: No such file or directory"


MIXED = (
    GOOD
    + """\
  - host.org/A
  - host.org/a
  - image: host.org/b
    keep: 1d
    priority: x
  - host.org/a:latest
  - host.org/d
"""
)


@pytest.mark.parametrize(
    ("changed", "faulty", "looked_at"),
    [
        ([4], [4], []),
        ([5], [9], [5]),  # of two equal ones the first may be the new one
        ([8], [8], []),
        ([9], [9], []),
        ([10], [], [10]),
        ([1, 3], [], []),
        ([2], [4, 8, 9], [5, 10]),  # the defaults concern all
        ([4, 10], [4], [10]),
    ],
)
def test_only_what_stands_on_changed_lines_counts(path, changed, faulty, looked_at):
    checked = offline(path, MIXED, *changed)
    assert [finding.line for finding in checked.findings] == faulty
    assert [wish.line for wish in checked.wishes] == looked_at


def test_what_breaks_the_whole_counts_wherever_it_stands(path):
    assert places(offline(path, "version: 2\n" + GOOD, 4).findings) == [(1, 10, "MalformedWishlist")]


def test_a_wishlist_that_the_change_does_not_touch_is_not_even_read(tmp_path):
    diff = read_diff("--- a/other.yaml\n+++ b/other.yaml\n@@ -0,0 +1 @@\n+x\n")
    checked = check_offline(Source.parse(str(tmp_path / "absent.yaml")), diff)
    assert (checked.is_touched, checked.findings, checked.wishes) == (False, (), ())


# --- online


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


def online(server: FakeRegistry, *items: str) -> list[Finding]:
    lines = "".join(f"  - {item}\n" for item in items).replace("HOST", server.url)
    wishlist = parse_wishlist(f"cvmfs_repo: a.b\ninput:\n{lines}".encode(), "w.yaml")
    assert not wishlist.broken
    registry = Registry(Transport(sleep=lambda _: None, attempts=2))
    with ThreadPoolExecutor(4) as askers:
        return list(check_online(list(wishlist.wishes), registry, askers))


def test_an_image_that_is_there_is_no_finding(server):
    server.hold_image(IMAGE, "1")
    assert online(server, "HOST/some/image:1") == []


def test_each_image_that_is_not_there_is_told_at_its_line(server):
    server.hold_image(IMAGE, "1")
    findings = online(server, "HOST/some/image:1", "HOST/some/image:2", "HOST/no/image:1")
    assert [(one.line, one.kind, one.is_warning, one.retryable) for one in findings] == [
        (4, "NoSuchImage", False, False),
        (5, "NoSuchImage", False, False),
    ]


def test_each_platform_that_is_wished_for_must_be_there(server):
    server.hold_image(builders.Index([IMAGE, ARM]), "1")
    wanted = "platforms: [linux/amd64, linux/arm64, linux/s390x, linux/ppc64le]"
    findings = online(server, f"{{image: HOST/some/image:1, {wanted}}}")
    assert [one.kind for one in findings] == ["NoSuchPlatform", "NoSuchPlatform"]
    assert "linux/s390x" in findings[0].text
    assert online(server, "{image: HOST/some/image:1, platforms: all}") == []


def test_an_image_that_is_missing_is_told_once_whatever_the_platforms(server):
    assert len(online(server, "{image: HOST/some/image:1, platforms: [linux/amd64, linux/arm64]}")) == 1


def test_a_build_for_another_platform_is_a_warning(server):
    server.hold_image(ARM, "1")
    (finding,) = online(server, "HOST/some/image:1")
    assert finding.is_warning


def test_of_a_wildcard_the_newest_match_is_looked_at(server):
    server.hold_image(IMAGE, "1.10")
    server.hold_tags("1.9", "1.10", "2.0", "latest")
    assert online(server, "HOST/some/image:1.*") == []
    (finding,) = online(server, "HOST/some/image:*")
    assert finding.kind == "NoSuchImage"
    assert ":2.0" in finding.text


@pytest.mark.parametrize("item", ["HOST/some/image:9.*", "{image: 'HOST/some/image:1.*', tags: {exclude: ['1.*']}}"])
def test_a_wildcard_that_stands_for_nothing_is_told(server, item):
    server.hold_tags("1.9", "1.10")
    (finding,) = online(server, item)
    assert (finding.line, finding.kind, finding.is_warning) == (3, "NothingMatches", False)


def test_an_ignored_error_is_a_warning(server):
    (finding,) = online(server, "{image: HOST/some/image:1, ignore_errors: true}")
    assert (finding.kind, finding.is_warning) == ("NoSuchImage", True)


def test_credentials_that_nobody_has_named_are_told(server):
    (finding,) = online(server, "{image: HOST/some/image:1, credentials: nobody}")
    assert "nobody" in finding.text


def test_a_registry_that_is_down_is_told_as_something_that_may_pass(server):
    (finding,) = online(server, "http://127.0.0.1:1/some/image:1")
    assert finding.retryable
