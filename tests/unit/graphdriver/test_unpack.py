"""Archives become directories that overlayfs can stack: what is hidden, what is linked, and what leads nowhere."""

import contextlib
import errno
import io
import os
import stat
from pathlib import Path

import pytest

from ducc.layer.tar import MalformedArchive
from graphdriver.directory import Below, is_opaque, is_whiteout
from graphdriver.unpack import unpack
from tests.builders import (
    BLOCK,
    CHARACTER,
    FIFO,
    Entry,
    directory,
    file,
    hard_link,
    opaque,
    symlink,
    tar,
    whiteout,
)
from tests.needs import need_root

SECRET = "of the host"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    need_root()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "hello").write_text(SECRET)
    top = tmp_path / "dest"
    top.mkdir()
    return top


def unpacked(top: Path, *entries: Entry, below: tuple[Path, ...] = ()) -> Path:
    unpack(io.BytesIO(tar(entries)), top, Below(below), "layer x")
    return top


def test_hidden_files_become_devices_and_hidden_directories_say_so(top: Path) -> None:
    unpacked(top, directory("d"), whiteout("d/gone"), directory("o"), opaque("o"), file("o/new"))
    assert is_whiteout(os.lstat(top / "d/gone"))
    assert is_opaque(top / "o")
    assert not is_opaque(top / "d")


def test_what_a_layer_itself_has_is_not_hidden_by_its_whiteouts(top: Path) -> None:
    unpacked(top, file("a", b"a"), whiteout("a"), whiteout("b"), file("b", b"b"), whiteout("c"), directory("c"))
    assert (top / "a").read_bytes() + (top / "b").read_bytes() == b"ab"
    assert is_opaque(top / "c"), "what is below would be seen in the directory that takes its place"


def test_owners_modes_times_and_attributes_are_those_of_the_archive(top: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    described = {"uid": 7, "gid": 8, "mtime_ns": 1_500_000_000_123_456_789}
    unpacked(
        top,
        file("f", b"x", mode=0o6755, xattrs={"security.capability": capability, "user.x": b"\xff\0"}, **described),
        directory("d", mode=0o1700, **described),
        file("d/later"),
        symlink("l", "/nowhere", **described),
    )
    for name, mode in (("f", 0o6755), ("d", 0o1700)):
        status = os.lstat(top / name)
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (7, 8, mode)
        assert status.st_mtime_ns == described["mtime_ns"]
    assert os.getxattr(top / "f", "user.x") == b"\xff\0"
    assert os.getxattr(top / "f", "security.capability") == capability
    assert os.lstat(top / "l").st_uid == 7
    assert os.lstat(top / "l").st_mtime_ns == described["mtime_ns"]


def test_overlayfs_is_told_nothing_by_an_archive(top: Path) -> None:
    unpacked(
        top,
        directory(
            "d", xattrs={"trusted.overlay.opaque": b"y", "trusted.overlay.redirect": b"/x", "trusted.mine": b"1"}
        ),
        Entry(b"dev", CHARACTER, device=(0, 0)),
        Entry(b"null", CHARACTER, device=(1, 3)),
        Entry(b"disk", BLOCK, device=(8, 0)),
        Entry(b"pipe", FIFO),
    )
    assert os.listxattr(top / "d") == ["trusted.mine"]
    assert not (top / "dev").exists()
    assert os.lstat(top / "null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(os.lstat(top / "disk").st_mode)
    assert stat.S_ISFIFO(os.lstat(top / "pipe").st_mode)


def test_a_hard_link_to_a_file_of_a_lower_layer_brings_a_copy_of_it(top: Path, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc").chmod(0o711)
    (lower / "etc/passwd").write_text("root")
    (lower / "etc/passwd").chmod(0o640)
    unpacked(top, directory("home"), hard_link("home/passwd", "etc/passwd"), below=(lower,))
    one, other = os.lstat(top / "home/passwd"), os.lstat(top / "etc/passwd")
    assert one.st_ino == other.st_ino
    assert stat.S_IMODE(one.st_mode) == 0o640
    assert (top / "home/passwd").read_text() == "root"
    assert stat.S_IMODE(os.lstat(top / "etc").st_mode) == 0o711
    assert os.lstat(top / "etc").st_mtime_ns == os.lstat(lower / "etc").st_mtime_ns


def test_a_hard_link_stands_in_its_own_directory_whatever_that_of_its_target_is(top: Path) -> None:
    unpacked(top, directory("a"), file("a/one", b"1"), directory("b"), hard_link("b/two", "a/one"), file("b/x"))
    assert (top / "b/two").read_bytes() == b"1"
    assert sorted(os.listdir(top / "a")) == ["one"]


def test_a_hard_link_to_what_a_lower_layer_hides_is_refused(top: Path, tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    upper.mkdir()
    lower.mkdir()
    (lower / "f").write_text("1")
    os.mknod(upper / "f", stat.S_IFCHR, 0)
    with pytest.raises(MalformedArchive, match="no layer has"):
        unpacked(top, hard_link("g", "f"), below=(upper, lower))


def test_holes_are_kept(top: Path) -> None:
    unpacked(top, file("f", b"x" + bytes(8 << 20) + b"y"))
    status = os.lstat(top / "f")
    assert status.st_size == (8 << 20) + 2
    assert status.st_blocks * 512 < 4 << 20
    assert (top / "f").read_bytes() == b"x" + bytes(8 << 20) + b"y"


def test_a_path_through_links_stays_within_the_layer(top: Path) -> None:
    unpacked(
        top,
        symlink("lib", "usr/lib"),
        directory("usr"),
        directory("usr/lib"),
        file("lib/one", b"1"),
        directory("etc"),
        symlink("absolute", "/etc"),
        file("absolute/two", b"2"),
    )
    assert (top / "usr/lib/one").read_bytes() + (top / "etc/two").read_bytes() == b"12"


BREAKOUTS = {
    "dotdot": [file("../victim/dotdot", b"x")],
    "slash-dotdot": [file("/../victim/slash-dotdot", b"x")],
    "dir through a link up": [symlink("loophole", "../victim"), file("loophole/file", b"x")],
    "overwrite through a link up": [symlink("loophole", "../victim/hello"), file("loophole", b"x")],
    "link to a link up": [symlink("a", "../victim"), symlink("b", "a"), file("b/hello", b"x")],
    "absolute link": [symlink("a", "/proc/self/root"), file("a/tmp/breakout", b"x")],
    "hard link up": [hard_link("stolen", "../victim/hello")],
    "hard link through a link": [symlink("a", "../victim"), hard_link("stolen", "a/hello")],
    "hard link to a link, written": [
        symlink("a", "../victim/hello"),
        hard_link("b", "a"),
        file("b", b"x"),
    ],
    "whiteout up": [whiteout("../victim/hello")],
    "whiteout through a link": [symlink("a", "../victim"), whiteout("a/hello")],
    "whiteout of the parent": [file(".wh...", b"")],
    "opaque through a link": [symlink("a", "../victim"), opaque("a")],
    "replaced parent": [directory("d"), file("d/x"), symlink("d", "../victim"), file("d/hello", b"x")],
    "mode through a link": [symlink("a", "../victim/hello"), Entry(b"a", b"5", mode=0o777)],
}


@pytest.mark.parametrize("entries", BREAKOUTS.values(), ids=BREAKOUTS)
def test_no_archive_reaches_anything_outside(top: Path, entries: list[Entry]) -> None:
    victim = top.parent / "victim"
    before = os.lstat(victim), os.lstat(victim / "hello")
    with contextlib.suppress(MalformedArchive):
        unpacked(top, *entries)
    assert (victim / "hello").read_text() == SECRET
    assert os.listdir(victim) == ["hello"]
    after = os.lstat(victim), os.lstat(victim / "hello")
    for one, other in zip(before, after, strict=True):
        assert (one.st_mode, one.st_mtime_ns, one.st_nlink) == (other.st_mode, other.st_mtime_ns, other.st_nlink)
    inside = [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in inside if path.read_bytes() == SECRET.encode()]


@pytest.mark.parametrize("size", [0, 1, 511, 700])
def test_an_archive_that_is_cut_off_or_not_sent_is_refused(top: Path, size: int) -> None:
    with pytest.raises(MalformedArchive):
        unpack(io.BytesIO(tar([file("a", b"x" * 1000)])[:size]), top, Below(()), "layer x")


def test_a_disk_that_is_full_is_no_fault_of_the_archive(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        unpacked(top, file("a", b"x"))
