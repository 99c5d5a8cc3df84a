"""Whatever a path says, what is looked for has a well-formed name, or the client is told what is wrong."""

import pytest

from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.mirror.question import Base, BlobOf, ManifestOf, ReferrersOf, TagsOf, read_question
from ducc.mirror.refusal import Refusal

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("path", "query", "image"),
    [
        ("/v2/library/python/manifests/3.11", "ns=docker.io", "registry.hub.docker.com/library/python:3.11"),
        ("/v2/library/python/manifests/3.11", "", "registry.hub.docker.com/library/python:3.11"),
        ("/v2/python/manifests/3.11", "", "registry.hub.docker.com/library/python:3.11"),
        ("/v2/tools/root/manifests/6", "ns=registry.example.org", "registry.example.org/tools/root:6"),
        ("/v2/tools/root/manifests/6", "ns=registry.example.org:8443", "registry.example.org:8443/tools/root:6"),
        ("/v2/tools/root/manifests/6", "ns=localhost%3A5000", "localhost:5000/tools/root:6"),
        ("/v2/registry.example.org/tools/root/manifests/6", "", "registry.example.org/tools/root:6"),
        ("/v2/registry.example.org:8443/root/manifests/6", "", "registry.example.org:8443/root:6"),
        ("/v2/docker.io/library/python/manifests/3", "", "registry.hub.docker.com/library/python:3"),
        ("/v2/manifests/manifests/manifests", "ns=a.example", "a.example/manifests:manifests"),
        ("/v2/tools/root/manifests/sha256%3a" + HEX, "ns=a.example", f"a.example/tools/root@{DIGEST}"),
        ("/v2/tools/root/manifests/" + DIGEST, "ns=a.example", f"a.example/tools/root@{DIGEST}"),
    ],
)
def test_an_image_is_found_by_its_registrys_name_however_that_is_said(path: str, query: str, image: str) -> None:
    assert read_question(path.encode(), query.encode()) == ManifestOf(Reference.parse(f"https://{image}"))


def test_the_registry_that_is_meant_where_nobody_says_it_can_be_chosen() -> None:
    question = read_question(b"/v2/tools/root/manifests/6", b"", "127.0.0.1:5000")
    assert question == ManifestOf(Reference.parse("https://127.0.0.1:5000/tools/root:6"))


def test_the_other_questions_are_told_apart() -> None:
    named = Reference.parse("https://a.example/tools/root:any")
    assert read_question(b"/v2/", b"") == read_question(b"/v2", b"ns=a.example") == Base()
    assert read_question(f"/v2/tools/root/blobs/{DIGEST}".encode(), b"ns=a.example") == BlobOf(named, Digest(HEX))
    assert read_question(f"/v2/tools/root/referrers/{DIGEST}".encode(), b"ns=a.example") == ReferrersOf()
    assert read_question(b"/v2/tools/root/tags/list", b"ns=a.example&n=2&last=1") == TagsOf(
        named, "tools/root", "a.example", "1", 2
    )


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/", "", "UNSUPPORTED"),
        ("/v1/search", "", "UNSUPPORTED"),
        ("/v2/_catalog", "", "UNSUPPORTED"),
        ("//v2/a/manifests/x", "", "UNSUPPORTED"),
        ("/v2/a/blobs/uploads/", "", "UNSUPPORTED"),
        ("/v2/a/tags/all", "", "UNSUPPORTED"),
        ("/v2/a/tags/list", "n=-1", "UNSUPPORTED"),
        ("/v2/a/tags/list", "n=1e9", "UNSUPPORTED"),
        ("/v2/a/manifests/", "", "UNSUPPORTED"),
        ("/v2//manifests/x", "", "UNSUPPORTED"),
        ("/v2/../../etc/passwd", "", "UNSUPPORTED"),
        ("/v2/../../etc/manifests/passwd", "", "NAME_INVALID"),
        ("/v2/a/../b/manifests/x", "", "NAME_INVALID"),
        ("/v2/a/%2e%2e/b/manifests/x", "", "NAME_INVALID"),
        ("/v2/a%2f..%2fb/manifests/x", "", "NAME_INVALID"),
        ("/v2/a//b/manifests/x", "", "NAME_INVALID"),
        ("/v2/.metadata/a/manifests/x", "", "NAME_INVALID"),
        ("/v2/A/manifests/x", "", "NAME_INVALID"),
        ("/v2/a%00b/manifests/x", "", "NAME_INVALID"),
        ("/v2/a/manifests/x%00", "", "NAME_INVALID"),
        ("/v2/a/manifests/x%0a", "", "NAME_INVALID"),
        ("/v2/a%0d%0ax/manifests/x", "", "NAME_INVALID"),
        ("/v2/\xe9/manifests/x", "", "NAME_INVALID"),
        ("/v2/%ff/manifests/x", "", "NAME_INVALID"),
        ("/v2/a@b/manifests/x", "", "NAME_INVALID"),
        ("/v2/a:b/manifests/x", "", "NAME_INVALID"),
        ("/v2/" + "a" * 300 + "/manifests/x", "", "NAME_INVALID"),
        ("/v2/" + "a/" * 5000 + "manifests/x", "", "NAME_INVALID"),
        ("/v2/a/manifests/x", "ns=../..", "NAME_INVALID"),
        ("/v2/a/manifests/x", "ns=a.example/b", "NAME_INVALID"),
        ("/v2/a/manifests/x", "ns=a.example:99999", "NAME_INVALID"),
        ("/v2/a/manifests/x", "ns=user:password@a.example", "NAME_INVALID"),
        ("/v2/a/manifests/x", "ns=%00", "NAME_INVALID"),
        ("/v2/a/manifests/x", "ns=\xe9", "NAME_INVALID"),
        ("/v2/a/manifests/x", "&".join("abcdefghijklmnopqrstuvwxyz"), "NAME_INVALID"),
        ("/v2/a/manifests/*", "", "MANIFEST_INVALID"),
        ("/v2/a/manifests/..", "", "MANIFEST_INVALID"),
        ("/v2/a/manifests/.x", "", "MANIFEST_INVALID"),
        ("/v2/a/manifests/" + "x" * 129, "", "MANIFEST_INVALID"),
        ("/v2/a/manifests/sha256:..", "", "DIGEST_INVALID"),
        (f"/v2/a/manifests/sha512:{HEX}{HEX}", "", "DIGEST_INVALID"),
        (f"/v2/a/blobs/sha256:{HEX[1:]}", "", "DIGEST_INVALID"),
        (f"/v2/a/blobs/sha256:{HEX.upper()}", "", "DIGEST_INVALID"),
        ("/v2/a/blobs/latest", "", "DIGEST_INVALID"),
        ("/v2/a/referrers/x", "", "DIGEST_INVALID"),
    ],
)
def test_what_names_nothing_is_refused_in_one_short_line(path: str, query: str, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_question(path.encode("latin-1"), query.encode("latin-1"))
    assert caught.value.code == code
    assert 400 <= caught.value.status < 500
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
