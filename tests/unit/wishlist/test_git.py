import subprocess
import sys
import time
from pathlib import Path

import pytest

from ducc.wishlist import git
from ducc.wishlist.git import GitFailed, GitFile, MalformedGitSource
from ducc.wishlist.sources import Change, Source
from ducc.wishlist.wish import MAX_BYTES, UnreadableWishlist
from tests.needs import need_program

LIST = "cvmfs_repo: a.b\ninput:\n  - host.org/{}\n"


class Checkout:
    """A repository with lists, as somebody has it who pushes to it."""

    def __init__(self, directory: Path) -> None:
        need_program("git")
        self.directory = directory
        self("init", "--quiet", "--initial-branch=main", str(directory), where=directory.parent)

    def __call__(self, *words: str, where: Path | None = None) -> str:
        person = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        done = subprocess.run(
            ["git", *person, *words], cwd=where or self.directory, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, path: str, content: str | bytes) -> None:
        file = self.directory / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        self("add", path)
        self("commit", "--quiet", "--message", "Change")

    def source(self, file: str) -> str:
        return f"git+file://{self.directory}//{file}"


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    made = Checkout(tmp_path / "lists")
    made.commit("site/w.yaml", LIST.format("a"))
    return made


def names(loaded) -> list[str]:
    return [wish.reference.repository for wish in loaded.wishlist.wishes] if loaded.wishlist else []


def test_a_branch_is_followed_and_fetched_only_when_it_has_moved(checkout, tmp_path, monkeypatch):
    commands = []
    run = git._Git.run
    monkeypatch.setattr(git._Git, "run", lambda self, *words: (commands.append(words[0]), run(self, *words))[1])
    source = Source.parse(checkout.source("site/w.yaml@main"), tmp_path / "cache")
    first, second = source.load(), source.load()
    assert (first.change, names(first), second.change) == (Change.NEW, ["a"], Change.UNCHANGED)
    assert commands.count("ls-remote") == 2
    assert commands.count("fetch") == 1
    checkout.commit("site/w.yaml", LIST.format("b"))
    third = source.load()
    assert (third.change, names(third)) == (Change.NEW, ["b"])
    after_restart = Source.parse(checkout.source("site/w.yaml@main"), tmp_path / "cache").load()
    assert names(after_restart) == ["b"]
    assert commands.count("fetch") == 2
    assert [path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()] == ["wishlist"]


def test_a_commit_that_leaves_the_list_alone_is_no_news(checkout):
    source = Source.parse(checkout.source("site/w.yaml@main"))
    source.load()
    checkout.commit("other", "x")
    assert source.load().change is Change.UNCHANGED


def test_without_a_branch_the_servers_own_is_meant_and_others_can_be_named(checkout):
    checkout("switch", "--quiet", "--create", "feature/x.1")
    checkout.commit("site/w.yaml", LIST.format("feature"))
    checkout("switch", "--quiet", "main")
    assert names(Source.parse(checkout.source("site/w.yaml")).load()) == ["a"]
    assert names(Source.parse(checkout.source("site/w.yaml@feature/x.1")).load()) == ["feature"]


def test_a_file_in_a_checkout_is_a_plain_file(checkout):
    assert names(Source.parse(str(checkout.directory / "site/w.yaml")).load()) == ["a"]


@pytest.mark.parametrize(
    ("file", "error", "said"),
    [
        ("site/w.yaml@absent", GitFailed, "there is no such branch"),
        ("absent.yaml@main", UnreadableWishlist, "has no such file"),
        ("site@main", UnreadableWishlist, "has no such file"),
        ("big.yaml@main", UnreadableWishlist, "larger than"),
    ],
)
def test_what_is_not_there_leaves_the_last_good_one(checkout, file, error, said):
    checkout.commit("big.yaml", b"#" * (MAX_BYTES + 1))
    loaded = Source.parse(checkout.source(file)).load()
    assert (loaded.wishlist, loaded.change) == (None, Change.BAD)
    assert isinstance(loaded.error, error)
    assert said in str(loaded.error)
    assert len(str(loaded.error).splitlines()) == 1


def test_a_repository_that_goes_away_leaves_the_last_good_one(checkout, tmp_path):
    source = Source.parse(checkout.source("site/w.yaml"), tmp_path / "cache")
    source.load()
    checkout.directory.rename(tmp_path / "elsewhere")
    loaded = source.load()
    assert (loaded.change, names(loaded)) == (Change.BAD, ["a"])
    assert isinstance(loaded.error, GitFailed)
    assert loaded.error.retryable


@pytest.mark.parametrize(
    ("text", "url", "path", "reference"),
    [
        ("git+https://host.org/a/b.git//w.yaml@main", "https://host.org/a/b.git", "w.yaml", "refs/heads/main"),
        ("git+https://host.org:8443/b//x/w.yaml", "https://host.org:8443/b", "x/w.yaml", "HEAD"),
        ("git+ssh://git@host.org/b.git//w.yaml@a/b-1", "ssh://git@host.org/b.git", "w.yaml", "refs/heads/a/b-1"),
        ("git+file:///srv/b//w.yaml", "file:///srv/b", "w.yaml", "HEAD"),
    ],
)
def test_a_source_in_git_says_where_what_and_on_which_branch(text, url, path, reference):
    source = GitFile.parse(text)
    assert (source._url, source._path, source._reference, source.name) == (url, path, reference, text)


@pytest.mark.parametrize(
    "text",
    [
        "git+https://host.org/b.git",
        "git+https://host.org/b.git//",
        "git+https://host.org/b.git//w.yaml@",
        "git+https://me:s3cret@host.org/b.git//w.yaml",
        "git+https://host.org//w.yaml",
        "git+ext::sh -c touch% x//w.yaml",
        "git+ext://host.org/b//w.yaml",
        "git+git://host.org/b//w.yaml",
        "git+--upload-pack=x//w.yaml",
        "git+ssh://-oProxyCommand=x/b//w.yaml",
        "git+ssh://-x@host.org/b//w.yaml",
        "git+https:///b//w.yaml",
        "git+file://host.org/b//w.yaml",
        "git+https://host.org/b//--help",
        "git+https://host.org/b//../w.yaml",
        "git+https://host.org/b//a/../../w.yaml",
        "git+https://host.org/b//a:b",
        "git+https://host.org/b//w.yaml@-x",
        "git+https://host.org/b//w.yaml@a..b",
        "git+https://host.org/b//w.yaml@a:b",
        "git+https://host.org/b//w.yaml@+a*",
        "git+https://host.org/b//w.yaml@a.lock",
        "git+https://host.org/b//w.yaml@a@{1}",
        "git+https://host.org/b c//w.yaml",
        "git+https://host.org/b\n//w.yaml",
        "git+",
    ],
)
def test_nothing_becomes_an_option_another_protocol_or_a_way_out(text):
    with pytest.raises(MalformedGitSource) as caught:
        Source.parse(text)
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_git_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    script = tmp_path / "git"
    script.write_text(f"#!{sys.executable}\nimport subprocess\nsubprocess.run(['sleep', '600'])\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(git, "TIME_LIMIT_SECONDS", 0.3)
    started = time.monotonic()
    loaded = Source.parse("git+https://host.org/b//w.yaml").load()
    assert isinstance(loaded.error, GitFailed)
    assert "took longer than 0.3 s" in str(loaded.error)
    assert time.monotonic() - started < 60


def test_without_the_program_git_the_source_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    loaded = Source.parse("git+https://host.org/b//w.yaml").load()
    assert "the program git can't be run" in str(loaded.error)


def test_git_is_told_nothing_that_points_elsewhere_and_asks_nobody(tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    script = tmp_path / "git"
    script.write_text(
        f"#!/bin/sh\nenv >{seen}\necho \"fatal: unable to access 'https://me:s3cret@h/'\" >&2\nexit 128\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("GIT_DIR", "GIT_CONFIG_COUNT", "GIT_ASKPASS", "SSH_ASKPASS", "GIT_SSL_CAINFO"):
        monkeypatch.setenv(name, "x")
    loaded = Source.parse("git+https://host.org/b//w.yaml").load()
    told = dict(line.partition("=")[::2] for line in seen.read_text().splitlines())
    assert {name for name in told if name.startswith(("GIT_", "SSH_ASK"))} == {
        "GIT_ALLOW_PROTOCOL",
        "GIT_LFS_SKIP_SMUDGE",
        "GIT_SSH_COMMAND",
        "GIT_SSL_CAINFO",
        "GIT_TERMINAL_PROMPT",
    }
    assert (told["GIT_TERMINAL_PROMPT"], told["GIT_ALLOW_PROTOCOL"]) == ("0", "https")
    assert "s3cret" not in str(loaded.error)
    assert "unable to access 'https://***@h/'" in str(loaded.error)
