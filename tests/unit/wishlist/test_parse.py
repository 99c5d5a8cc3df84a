from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.errors import BadInput
from ducc.image.reference import MalformedReference, NoRegistry, Reference
from ducc.wishlist.parse import parse_wishlist
from ducc.wishlist.wish import MAX_BYTES, BadSetting, DuplicateWish, MalformedWishlist, WrongType

SAMPLES = sorted((Path(__file__).parents[3] / "wishlists").glob("*.yaml"))
HEAD = "version: 1\ncvmfs_repo: unpacked.example.org\ninput:\n"


def wishlist(*lines: str):
    return parse_wishlist((HEAD + "".join(f"  - {line}\n" for line in lines)).encode(), "w.yaml")


def faults(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(MalformedWishlist) as caught:
        parse_wishlist(data, "w.yaml")
    assert str(caught.value).splitlines() == [str(fault) for fault in caught.value.faults]
    assert caught.value.exit_code == 2
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_granted_as_a_whole(path):
    read = parse_wishlist(path.read_bytes(), path.name)
    assert read.wishes
    assert not read.broken
    assert {wish.fqrn for wish in read.wishes} == {read.fqrn}


def test_a_wish_knows_its_place_and_what_its_file_says_for_all():
    text = (
        "user: me\noutput_format: '$(scheme)://thin.example.org/$(image)'\n"
        + HEAD
        + "  - host.org/a:1.10\n  - host.org/b:*\n"
    )
    first, second = parse_wishlist(text.encode(), "w.yaml").wishes
    assert (first.reference, first.fqrn) == (Reference.parse("host.org/a:1.10"), "unpacked.example.org")
    assert (first.user, first.output_format) == ("me", "$(scheme)://thin.example.org/$(image)")
    assert (first.file, first.line, second.line) == ("w.yaml", 6, 7)
    assert second.reference.is_wildcard


@pytest.mark.parametrize("nothing", ["input:\n", "input: []\n", "input: null\n"])
def test_a_wishlist_may_wish_for_nothing(nothing):
    assert parse_wishlist(f"cvmfs_repo: a.b\n{nothing}".encode(), "w.yaml").wishes == ()


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("https://host", NoRegistry, "w.yaml:5:5: https://host: no registry"),
        ("1.10", WrongType, "w.yaml:5:5: an image reference must be a string, not a decimal number"),
        ("12:30:00", WrongType, "not an integer"),
        ("{host/a: 1}", BadSetting, "unknown key 'host/a'"),
        ("[host/a:1]", WrongType, "not a list"),
        ("", WrongType, "not empty"),
        ("!!python/name:os.system x", WrongType, "tagged"),
        ("!secret x", WrongType, "tagged"),
        ("host.org/../a:1", MalformedReference, "malformed name"),
        ("user:s3cret@host/a:1", MalformedReference, "***@host/a:1"),
        ("http://host.org/good:1", DuplicateWish, "line 4"),
        (f"host.org/good:1@sha256:{'a' * 64}", DuplicateWish, "line 4"),
    ],
)
def test_one_broken_line_fails_alone(line, error, said):
    read = wishlist("host.org/good:1", line, "host.org/better:1")
    assert [wish.reference.repository for wish in read.wishes] == ["good", "better"]
    (broken,) = read.broken
    assert isinstance(broken.error, error)
    assert (broken.file, broken.line) == ("w.yaml", 5)
    assert said in str(broken)
    assert len(str(broken).splitlines()) == 1
    assert "s3cret" not in f"{broken}{broken.text}"


def test_of_a_thousand_wishes_only_the_broken_one_fails():
    read = wishlist(*(f"host.org/a:{number}" if number != 500 else "host.org/A" for number in range(1000)))
    assert (len(read.wishes), len(read.broken)) == (999, 1)


def test_all_faults_are_told_at_once_each_in_its_place():
    assert faults(
        "version: 2\nuser: 7\ncvmfs_repo: nodots\nfoo: 1\nuser: me\noutput_format: $(nonsense)\ninput: host/a:1\n"
    ) == [
        "w.yaml:1:10: version must be 1, the only version of the schema",
        "w.yaml:2:7: user must be a string, not an integer: write it in quotes",
        "w.yaml:3:13: nodots: not a fully qualified repository name such as unpacked.example.org",
        "w.yaml:4:1: unknown key 'foo': a wishlist has version, user, cvmfs_repo, output_format, input, "
        "ignoreErrors, defaults",
        "w.yaml:5:1: the key 'user' stands here for the second time",
        "w.yaml:6:16: output_format: $(nonsense) is none of $(scheme), $(registry), $(repository), $(digest), $(tag), "
        "$(reference), $(image)",
        "w.yaml:7:8: input must be a list of image references, not a string",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "w.yaml:1:1: the file is empty"),
        ("# nothing\n", "w.yaml:1:1: the file is empty"),
        ("- host.org/a:1\n", "w.yaml:1:1: a wishlist must be a mapping of keys to values, not a list"),
        ("input: []\n", "w.yaml:1:1: cvmfs_repo is missing"),
        ("cvmfs_repo:\ninput: []\n", "w.yaml:1:12: cvmfs_repo is missing"),
        ("cvmfs_repo: a.b\n", "w.yaml:1:1: input is missing"),
        ("cvmfs_repo: a.b/sub/dir\ninput: []\n", "w.yaml:1:13: a.b/sub/dir: publishing below a directory is not supp"),
        ("cvmfs_repo: ../x\ninput: []\n", "w.yaml:1:13: "),
        ("cvmfs_repo: Unpacked.Example\ninput: []\n", "w.yaml:1:13: "),
        (HEAD + "\t- host.org/a:1\n", "w.yaml:4:1: not valid YAML"),
        (HEAD + "  - 'host/a:1\n", "w.yaml:5:1: not valid YAML"),
        (HEAD + "  - &a host/a:1\n  - *a\n", "w.yaml:5:5: aliases are not supported"),
        ("a: &a [*a]\n", "w.yaml:1:8: aliases are not supported"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "w.yaml:2:8: aliases"),
        ("<<: {cvmfs_repo: a.b}\ninput: []\n", "w.yaml:1:1: cvmfs_repo is missing"),
        ("[" * 100_000, "w.yaml:1:9: nested too deep"),
        ("- " * 50_000, "w.yaml:1:17: nested too deep"),
        ("{a: " * 1_000, "nested too deep"),
        (HEAD + "--- \nversion: 1\n", "another document"),
        ("version: 1.0\n" + HEAD, "w.yaml:1:10: version must be 1"),
        ("? [a]\n: b\n", "unknown key"),
        (b"\xef\xbb\xbf" + HEAD.encode(), "w.yaml:1:1: begins with a byte order mark"),
        (HEAD.encode() + b"  - host.org/\xff:1\n", "w.yaml:4:14: not UTF-8"),
        (HEAD + "  - host.org/\0:1\n", "w.yaml:4:14: the character '\\x00' is not allowed"),
        (HEAD.encode("utf-16"), "not UTF-8"),
        (b" " * (MAX_BYTES + 1), "w.yaml:1:1: larger than"),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_what_is_no_wishlist_is_refused_with_its_place(text, said):
    assert any(said in fault for fault in faults(text))


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n\t #?,\0é1.") | st.binary())
def test_any_text_is_a_wishlist_or_bad_input(text):
    try:
        parse_wishlist(text if isinstance(text, bytes) else text.encode(), "w.yaml")
    except BadInput as error:
        faulty = str(error).splitlines()
    else:
        faulty = ["w.yaml:"]
    assert all(line.startswith("w.yaml:") for line in faulty)
