from collections.abc import Iterator
from pathlib import Path

import pytest

from ducc.errors import BadInput
from ducc.storage.base import StoreRefused
from ducc.transport import RefusedAnswer, TemporaryStatus, Transport, Unreachable
from ducc.wishlist.sources import Change, Kept, Source
from ducc.wishlist.wish import MAX_BYTES, MalformedWishlist, UnreadableWishlist
from tests.fakes.registry import Answer, FakeRegistry, Seen, fake_registry


def text(*images: str) -> bytes:
    return b"cvmfs_repo: a.b\ninput:\n" + "".join(f"  - host.org/{image}\n" for image in images).encode()


def names(loaded) -> list[str]:
    return [wish.reference.repository for wish in loaded.wishlist.wishes] if loaded.wishlist else []


def quick_transport() -> Transport:
    return Transport(sleep=lambda _: None, attempts=2)


class Versions:
    """A web server's file that changes: conditional requests are answered as RFC 9110 says."""

    def __init__(self, header: str = "ETag") -> None:
        self.header, self.body, self.version = header, text("a"), 1
        self.statuses: list[int] = []

    def put(self, body: bytes) -> None:
        self.body, self.version = body, self.version + 1

    def __call__(self, seen: Seen) -> Answer:
        asked = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}[self.header]
        unchanged = seen.headers.get(asked) == f'"{self.version}"'
        self.statuses.append(304 if unchanged else 200)
        return Answer(self.statuses[-1], b"" if unchanged else self.body, {self.header: f'"{self.version}"'})


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


@pytest.fixture
def versions(server: FakeRegistry) -> Versions:
    changing = Versions()
    server.say_always("/list.yaml", changing)
    return changing


def web_source(server: FakeRegistry, cache: Path | None = None) -> Source:
    return Source.parse(f"{server.url}/list.yaml", cache, quick_transport())


# --- files


def test_a_file_is_new_then_unchanged_then_new_when_it_changes(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_bytes(text("a"))
    source = Source.parse(str(path))
    first, second = source.load(), source.load()
    assert (first.change, names(first), second.change) == (Change.NEW, ["a"], Change.UNCHANGED)
    assert second.wishlist is first.wishlist
    path.write_bytes(text("a", "b"))
    third = source.load()
    assert (third.change, names(third)) == (Change.NEW, ["a", "b"])


@pytest.mark.parametrize("bad", [b"", b"input: [", b"\xff", b"cvmfs_repo: a.b\n", None])
def test_a_bad_file_never_replaces_the_last_good_one_and_is_told_each_time(tmp_path, bad):
    path = tmp_path / "w.yaml"
    path.write_bytes(text("a"))
    source = Source.parse(str(path), tmp_path / "cache")
    assert source.load().change is Change.NEW
    path.unlink()
    if bad is not None:
        path.write_bytes(bad)
    for _ in range(2):
        loaded = source.load()
        assert (loaded.change, names(loaded)) == (Change.BAD, ["a"])
        assert isinstance(loaded.error, UnreadableWishlist if bad is None else MalformedWishlist)
    path.write_bytes(text("a"))
    assert source.load().change is Change.UNCHANGED


def test_the_last_good_one_outlives_the_process(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_bytes(text("a"))
    Source.parse(str(path), tmp_path / "cache").load()
    path.write_bytes(b"input: [")
    after_restart = Source.parse(str(path), tmp_path / "cache").load()
    assert (after_restart.change, names(after_restart)) == (Change.BAD, ["a"])


def test_there_is_no_wishlist_where_there_has_never_been_a_good_one(tmp_path):
    loaded = Source.parse(str(tmp_path / "absent.yaml"), tmp_path / "cache").load()
    assert (loaded.wishlist, loaded.change) == (None, Change.BAD)
    assert isinstance(loaded.error, UnreadableWishlist)


@pytest.mark.parametrize(
    "kept",
    [b"", b"\n", b"{}\n", b"[1]\n" + text("a"), b'{"validators": 7}\n' + text("a"), b'{"validators": {}}\nnonsense'],
)
def test_a_damaged_cache_is_as_good_as_none(tmp_path, kept):
    path = tmp_path / "w.yaml"
    path.write_bytes(text("a"))
    cache = tmp_path / "cache"
    Source.parse(str(path), cache).load()
    (file,) = cache.iterdir()
    file.write_bytes(kept)
    path.write_bytes(text("b"))
    loaded = Source.parse(str(path), cache).load()
    assert (loaded.change, names(loaded)) == (Change.NEW, ["b"])


def test_without_room_in_the_cache_a_good_wishlist_counts_all_the_same(tmp_path, caplog):
    path = tmp_path / "w.yaml"
    path.write_bytes(text("a"))
    (tmp_path / "cache").write_text("a file, not a directory")
    loaded = Source.parse(str(path), tmp_path / "cache").load()
    assert (loaded.change, names(loaded)) == (Change.NEW, ["a"])
    assert "can't be kept" in caplog.text
    with pytest.raises(StoreRefused):
        Kept(tmp_path / "cache" / "below", "x").write(b"", {})


def test_wishlists_of_different_sources_are_kept_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_bytes(text(name))
        Source.parse(str(tmp_path / f"{name}.yaml"), tmp_path / "cache").load()
        (tmp_path / f"{name}.yaml").unlink()
    kept = [Source.parse(str(tmp_path / f"{name}.yaml"), tmp_path / "cache").load() for name in ("a", "b")]
    assert list(map(names, kept)) == [["a"], ["b"]]


def test_a_relative_path_is_kept_as_the_file_that_it_names(tmp_path, monkeypatch):
    (tmp_path / "w.yaml").write_bytes(text("a"))
    Source.parse(str(tmp_path / "w.yaml"), tmp_path / "cache").load()
    (tmp_path / "w.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    assert names(Source.parse("w.yaml", tmp_path / "cache").load()) == ["a"]


# --- URLs


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_an_unchanged_list_behind_a_url_costs_a_304(server, header):
    versions = Versions(header)
    server.say_always("/list.yaml", versions)
    source = web_source(server)
    assert [source.load().change for _ in range(3)] == [Change.NEW, Change.UNCHANGED, Change.UNCHANGED]
    versions.put(text("b"))
    assert names(source.load()) == ["b"]
    assert versions.statuses == [200, 304, 304, 200]


def test_after_a_restart_too_an_unchanged_list_costs_a_304(server, versions, tmp_path):
    web_source(server, tmp_path).load()
    loaded = web_source(server, tmp_path).load()
    assert (loaded.change, names(loaded)) == (Change.NEW, ["a"])
    assert versions.statuses == [200, 304]


def test_a_bad_list_behind_a_url_stays_bad_while_it_does_not_change(server, versions, tmp_path):
    source = web_source(server, tmp_path)
    source.load()
    versions.put(b"<html>login</html>")
    for _ in range(2):
        loaded = source.load()
        assert (loaded.change, names(loaded)) == (Change.BAD, ["a"])
    assert versions.statuses == [200, 200, 304]
    after_restart = web_source(server, tmp_path).load()
    assert (after_restart.change, names(after_restart)) == (Change.BAD, ["a"])


def test_the_same_bytes_without_validators_are_no_news(server):
    server.hold("/list.yaml", text("a"))
    source = web_source(server)
    assert [source.load().change for _ in range(2)] == [Change.NEW, Change.UNCHANGED]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(503), TemporaryStatus),
        (Answer(body=text("a", "b"), cut_after=40), Unreachable),
        (Answer(body=text("a", "b"), cut_after=40, chunked=True), Unreachable),
        (Answer(body=b" " * (MAX_BYTES + 1)), RefusedAnswer),
        (Answer(body=text("b"), headers={"Content-Encoding": "gzip"}), RefusedAnswer),
        (Answer(304), None),
    ],
    ids=["busy", "cut", "cut chunked", "too long", "coded", "304 unasked"],
)
def test_an_answer_that_is_no_whole_list_leaves_the_last_good_one(server, answer, error):
    server.say("/list.yaml", Answer(body=text("a")))
    source = web_source(server)
    source.load()
    server.say_always("/list.yaml", answer)
    loaded = source.load()
    assert (loaded.change, names(loaded)) == (Change.BAD, ["a"])
    assert error is None or isinstance(loaded.error, error)


def test_an_odd_validator_is_not_sent_back(server):
    server.hold("/list.yaml", text("a"), etag="x" * 2000)
    source = web_source(server)
    source.load()
    source.load()
    assert all("If-None-Match" not in seen.headers for seen in server.seen)


def test_a_secret_in_a_query_is_not_shown(server):
    loaded = Source.parse(f"{server.url}/absent.yaml?token=s3cret", transport=quick_transport()).load()
    assert loaded.change is Change.BAD
    assert "s3cret" not in f"{loaded.error}{loaded.error!r}"


# --- kinds


def test_a_list_of_the_osg_is_a_source_for_the_repository_named(tmp_path, server):
    (tmp_path / "docker_images.txt").write_text("ubuntu\n# x\ncentos:7\n")
    server.hold("/docker_images.txt", b"fedora\n")
    (local,) = [Source.parse(f"osg:repo.example.org:{tmp_path}/docker_images.txt").load().wishlist]
    assert (local.fqrn, len(local.wishes)) == ("repo.example.org", 2)
    remote = Source.parse(f"osg:repo.example.org:{server.url}/docker_images.txt", transport=quick_transport()).load()
    assert names(remote) == ["library/fedora"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://host/x",
        "file:///x",
        "s3://bucket/x",
        "x\0y",
        "https://user:s3cret@host/x",
        "https:///x",
        "https://host/a b",
        "http://",
        "osg:repo.example.org",
        "osg:nodots:file.txt",
        "osg:repo.example.org:ftp://host/x",
    ],
)
def test_what_is_no_source_is_refused_in_one_line_without_secrets(text):
    with pytest.raises(BadInput) as caught:
        Source.parse(text)
    assert len(str(caught.value).splitlines()) == 1
    assert "s3cret" not in str(caught.value)
