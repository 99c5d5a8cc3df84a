import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.image.reference import MalformedReference, NoRegistry, NoTag, Reference, canonical_registry

HEX = "a" * 64
DIGEST = Digest(HEX)

HUB = "registry.hub.docker.com"

WITH_REGISTRY = [
    (f"https://{HUB}/library/centos:centos7", ("https", HUB, "library/centos", "centos7", None)),
    (f"{HUB}/library/centos:7", ("https", HUB, "library/centos", "7", None)),
    ("https://host:5005/a/b:tag", ("https", "host:5005", "a/b", "tag", None)),
    ("host:5005/a/b:tag", ("https", "host:5005", "a/b", "tag", None)),
    ("http://127.0.0.1:5000/a:1", ("http", "127.0.0.1:5000", "a", "1", None)),
    (f"host.org/repo@sha256:{HEX}", ("https", "host.org", "repo", None, DIGEST)),
    (f"host.org/repo:tag@sha256:{HEX}", ("https", "host.org", "repo", "tag", DIGEST)),
    (f"host.org/repo/@sha256:{HEX}", ("https", "host.org", "repo", None, DIGEST)),
    ("https://library/ubuntu:20.04", ("https", "library", "ubuntu", "20.04", None)),
    ("host.org/repo:1.2*", ("https", "host.org", "repo", "1.2*", None)),
    ("host.org/repo:*", ("https", "host.org", "repo", "*", None)),
    ("host.org/repo:*-py3", ("https", "host.org", "repo", "*-py3", None)),
    ("HOST.example.org/repo:Tag", ("https", "host.example.org", "repo", "Tag", None)),
    ("[::1]:5000/repo:1", ("https", "[::1]:5000", "repo", "1", None)),
    ("localhost/a.b/c__d/e-f:_1", ("https", "localhost", "a.b/c__d/e-f", "_1", None)),
    ("xn--bcher-kva.example/a:1", ("https", "xn--bcher-kva.example", "a", "1", None)),
    ("host.org/a:" + "t" * 128, ("https", "host.org", "a", "t" * 128, None)),
]

WITHOUT_TAG = [
    ("host.org/repo", ("https", "host.org", "repo", "latest", None)),
    ("host.org/repo/", ("https", "host.org", "repo", "latest", None)),
    ("https://host:5000/a/b", ("https", "host:5000", "a/b", "latest", None)),
]

SHORT = [  # as docker pull reads them
    ("ubuntu", ("https", HUB, "library/ubuntu", "latest", None)),
    ("ubuntu:20.04", ("https", HUB, "library/ubuntu", "20.04", None)),
    ("ubuntu:20.*", ("https", HUB, "library/ubuntu", "20.*", None)),
    (f"centos@sha256:{HEX}", ("https", HUB, "library/centos", None, DIGEST)),
    (f"centos:7@sha256:{HEX}", ("https", HUB, "library/centos", "7", DIGEST)),
    ("library/ubuntu:20.04", ("https", HUB, "library/ubuntu", "20.04", None)),
    ("rootproject/root", ("https", HUB, "rootproject/root", "latest", None)),
    ("a/b/c:1", ("https", HUB, "a/b/c", "1", None)),
    ("localhost:5000", ("https", HUB, "library/localhost", "5000", None)),
    ("docker.io/ubuntu", ("https", HUB, "library/ubuntu", "latest", None)),
    ("docker.io/library/ubuntu", ("https", HUB, "library/ubuntu", "latest", None)),
    ("docker.io/rootproject/root:6.32", ("https", HUB, "rootproject/root", "6.32", None)),
    ("https://docker.io/rootproject/root:6.32", ("https", HUB, "rootproject/root", "6.32", None)),
    ("index.docker.io/ubuntu", ("https", HUB, "library/ubuntu", "latest", None)),
    ("registry-1.docker.io/library/ubuntu:1", ("https", HUB, "library/ubuntu", "1", None)),
    ("Docker.IO/ubuntu:1", ("https", HUB, "library/ubuntu", "1", None)),
    (f"{HUB}/ubuntu:1", ("https", HUB, "library/ubuntu", "1", None)),
    ("docker.io:443/ubuntu:1", ("https", "docker.io:443", "ubuntu", "1", None)),
    ("notdocker.io/ubuntu:1", ("https", "notdocker.io", "ubuntu", "1", None)),
    (("h" * 64) + "/a:1", ("https", HUB, "h" * 64 + "/a", "1", None)),
    (HEX + ":1", ("https", HUB, f"library/{HEX}", "1", None)),
]
READ = WITH_REGISTRY + WITHOUT_TAG + SHORT


@pytest.mark.parametrize(("text", "parts"), READ)
def test_references_are_read_as_the_go_program_and_docker_read_them(text, parts):
    reference = Reference.parse(text)
    assert (reference.scheme, reference.registry, reference.repository, reference.tag, reference.digest) == parts


@pytest.mark.parametrize("text", [text for text, _ in READ])
def test_the_canonical_text_names_the_same_image(text):
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize("text", ["https://centos", "https://", "http://centos:7", f"https://a@sha256:{HEX}"])
def test_after_a_scheme_a_registry_must_follow(text):
    with pytest.raises(NoRegistry, match="no registry"):
        Reference.parse(text)


def test_a_reference_made_of_parts_implies_nothing():
    with pytest.raises(NoTag, match=":latest"):
        Reference("https", "host.org", "repo")


@pytest.mark.parametrize("text", [text for text, parts in READ if parts[1] == HUB])
def test_docker_hub_is_shown_by_one_name_and_asked_where_its_api_is(text):
    reference = Reference.parse(text)
    assert str(reference).startswith(f"https://{HUB}/")
    assert (reference.host, reference.base_url) == ("registry-1.docker.io", "https://registry-1.docker.io")


def test_every_other_registry_is_asked_by_its_name():
    reference = Reference.parse("http://host.org:5000/a:1")
    assert (reference.host, reference.base_url) == ("host.org:5000", "http://host.org:5000")


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("docker.io", HUB),
        ("Index.Docker.io", HUB),
        (HUB, HUB),
        ("Quay.io", "quay.io"),
        ("docker.io:443", "docker.io:443"),
    ],
)
def test_registries_have_one_name_each(name, canonical):
    assert canonical_registry(name) == canonical


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
        "",
        "/",
        "/a:1",
        HEX,
        "Ubuntu:20.04",
        "Library/ubuntu",
        "ubuntu:",
        "ubuntu/:1",
        "docker.io/",
        "docker.io/../ubuntu",
        "localhost/",
        "-host/a:1",
        "https://ho_st/a:1",
        "https://" + "h" * 64 + "/a:1",
        "h" * 64 + ".org/a:1",
        "host-/a:1",
        "..:80/a:1",
        "./a:1",
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


@pytest.mark.parametrize("text", ["Ubuntu", "docker.io/a..b", "host.org/a:.1", f"a@sha256:{HEX[:-1]}"])
def test_what_is_refused_is_shown_as_it_was_written(text):
    with pytest.raises(MalformedReference) as caught:
        Reference.parse(text)
    assert str(caught.value).startswith(f"{text}: ")


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
        "u:s3cret@host.org:5000/a",
        "u:s3cret@ubuntu:20.04",
        "docker.io/u:s3cret@ubuntu",
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
