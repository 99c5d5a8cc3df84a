import os
from pathlib import Path

import pytest

from ducc.cli import loop, main
from ducc.cli.caches import NoHome, default_cache

NOBODY_KNOWN = 4_000_000  # a user without a passwd entry


@pytest.fixture
def homeless(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: NOBODY_KNOWN)


def test_a_user_without_home_is_told_what_to_say(homeless, capsys):
    assert main.main(["status", "images.example.org", "--storage", "file:///nowhere"]) == 2
    assert loop.state_file(Path("/state"), "images.example.org") == Path("/state/images.example.org.sqlite")
    with pytest.raises(NoHome, match="--cache"):
        loop.state_file(None, "images.example.org")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert", "convert-single-image", "loop"])
def test_no_home_is_needed_where_the_cache_is_named(homeless, command, tmp_path, capsys):
    """What is said is that the list or image can't be used, not that there is no home."""
    words = [command, *(["a/b:1", "images.example.org"] if command == "convert-single-image" else ["missing.yaml"])]
    options = ["--storage", f"file://{tmp_path}", "--keys", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert main.main([*words, *options]) == 2
    said = capsys.readouterr().err
    assert "home" not in said
    assert "Traceback" not in said


def test_caches_lie_where_the_user_keeps_them(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY_KNOWN)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache() == tmp_path / ".cache/ducc"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_cache() == Path("/elsewhere/ducc")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_cache() == Path("/var/cache/ducc")
