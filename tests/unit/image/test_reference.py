import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.image.reference import MalformedReference, NoRegistry, NoTag, Reference

HEX = "a" * 64
DIGEST = Digest(HEX)

READ = [
    (
        "https://registry.hub.docker.com/library/centos:centos7",
        ("https", "registry.hub.docker.com", "library/centos", "centos7", None),
    ),
    ("registry.hub.docker.com/library/centos:7", ("https", "registry.hub.docker.com", "library/centos", "7", None)),
    ("https://host:5005/a/b:tag", ("https", "host:5005", "a/b", "tag", None)),
    ("http://127.0.0.1:5000/a:1", ("http", "127.0.0.1:5000", "a", "1", None)),
    (f"host/repo@sha256:{HEX}", ("https", "host", "repo", None, DIGEST)),
    (f"host/repo:tag@sha256:{HEX}", ("https", "host", "repo", "tag", DIGEST)),
    (f"host/repo/@sha256:{HEX}", ("https", "host", "repo", None, DIGEST)),
    ("library/ubuntu:20.04", ("https", "library", "ubuntu", "20.04", None)),
    ("host/repo:1.2*", ("https", "host", "repo", "1.2*", None)),
    ("host/repo:*", ("https", "host", "repo", "*", None)),
    ("host/repo:*-py3", ("https", "host", "repo", "*-py3", None)),
    ("HOST.example.org/repo:Tag", ("https", "host.example.org", "repo", "Tag", None)),
    ("[::1]:5000/repo:1", ("https", "[::1]:5000", "repo", "1", None)),
    ("localhost/a.b/c__d/e-f:_1", ("https", "localhost", "a.b/c__d/e-f", "_1", None)),
    ("xn--bcher-kva.example/a:1", ("https", "xn--bcher-kva.example", "a", "1", None)),
    ("host/a:" + "t" * 128, ("https", "host", "a", "t" * 128, None)),
]


@pytest.mark.parametrize(("text", "parts"), READ)
def test_references_are_read_as_the_go_program_reads_them(text, parts):
    reference = Reference.parse(text)
    assert (reference.scheme, reference.registry, reference.repository, reference.tag, reference.digest) == parts


@pytest.mark.parametrize("text", [text for text, _ in READ])
def test_the_canonical_text_names_the_same_image(text):
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize("text", ["ubuntu:20.04", "centos", f"centos@sha256:{HEX}", "https://centos", ""])
def test_there_is_no_default_registry(text):
    with pytest.raises(NoRegistry, match="registry"):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["host/repo", "host/repo/", "https://host:5000/a/b"])
def test_latest_is_not_implied(text):
    with pytest.raises(NoTag, match=":latest"):
        Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "host/a:b:c",
        "host/a@b@c",
        f"host/a:b@sha256:{HEX}@sha256:{HEX}",
        "host/a:",
        f"host/a:@sha256:{HEX}",
        f"host/a:1*@sha256:{HEX}",
        "host/a@",
        "host/a@sha256:abc",
        f"host/a@sha512:{HEX}{HEX}",
        "host/../a:1",
        "host/a/..:1",
        "host/a/../../b:1",
        "host//a:1",
        "host/a//b:1",
        "host/a/:1",
        "host/.flat:1",
        "host/a:.1",
        "host/a:-1",
        "host/a:1/2",
        "host/a:" + "t" * 129,
        "host/a:*" + "t" * 128,
        "host/A:1",
        "host/" + "a" * 256 + ":1",
        "host/a.:1",
        "host/a..b:1",
        "host/a___b:1",
        "host:0/a:1",
        "host:99999/a:1",
        "host:5000:1/a:1",
        "host:/a:1",
        "-host/a:1",
        "host-/a:1",
        "ho_st/a:1",
        "..:80/a:1",
        "./a:1",
        ("h" * 64) + "/a:1",
        "[::1/a:1",
        "[::zz]/a:1",
        "[fe80::1%25eth0]/a:1",
        "user:secret@host/a:1",
        "https://user@host/a:1",
        "host/a:1?x=y",
        "host/a:1#x",
        "ftp://host/a:1",
        "file:///etc/passwd:1",
        "://host/a:1",
        "https://https://host/a:1",
        "host/a: 1",
        " host/a:1",
        "host/a:1\n",
        "host/a:1\0",
        "bücher.example/a:1",
        "host/ａ:1",
        "host\\a:1",
    ],
)
def test_what_the_grammar_does_not_know_is_refused(text):
    with pytest.raises(MalformedReference):
        Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:s3cret@host/a:1",
        "user:s3cret@host/a:1",
        "user:a/s3cret@host/a:1",
        "user:a@s3cret/b@host/a:1",
        "u:a@b/s3cret@host/x:1",
        f"u:s3cret@host/x@sha256:{HEX}",
        "host/a:1?token=s3cret",
        "https://host?s3cret/a:1",
        "u:s3cret@host",
        "u:s3cret\n@host/a:1",
    ],
)
def test_passwords_in_references_are_refused_and_never_shown(text):
    with pytest.raises(MalformedReference) as caught:
        Reference.parse(text)
    assert "s3cret" not in str(caught.value)


@given(st.text() | st.from_regex(r"[a-z./:@*\[\]-]{0,40}", fullmatch=True))
def test_any_text_is_a_reference_or_one_line_that_says_why_not(text):
    try:
        reference = Reference.parse(text)
    except DuccError as error:
        lines = str(error).splitlines()
    else:
        lines = str(reference).splitlines()
        assert Reference.parse(str(reference)) == reference
        assert ".." not in f"{reference.registry}/{reference.repository}"
    assert len(lines) == 1


def test_the_digest_says_what_to_fetch_and_the_tag_what_to_show():
    reference = Reference.parse(f"host/a:1@sha256:{HEX}")
    assert reference.locator == f"sha256:{HEX}"
    assert reference.suffix == f":1@sha256:{HEX}"
    assert Reference.parse("host/a:1").locator == "1"


def test_only_a_star_makes_a_wildcard():
    assert Reference.parse("host/a:1.*").is_wildcard
    assert not Reference.parse("host/a:1.2").is_wildcard
    assert Reference.parse("host/a:1.*").with_tag("1.2") == Reference.parse("host/a:1.2")
