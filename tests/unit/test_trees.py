"""The comparison that judges everything else: it finds each kind of difference, and nothing else."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.needs import need_root
from tests.trees import Row, differences, scan, subtree, without, without_xattrs


def sample(directory: Path) -> Path:
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    os.link(directory / "bin" / "tool", directory / "bin" / "alias")
    (directory / "link").symlink_to("bin/tool")
    os.mkfifo(directory / "queue")
    (directory / os.fsdecode(b"caf\xe9")).write_bytes(b"latin")
    os.setxattr(directory / "bin" / "tool", "user.note", b"\x00\xff")
    for path in sorted(directory.rglob("*"), reverse=True):
        os.utime(path, ns=(0, 10**18), follow_symlinks=False)
    os.utime(directory, ns=(0, 10**18))
    return directory


@pytest.fixture
def pair(tmp_path):
    """Two trees, made alike."""
    return sample(tmp_path / "left"), sample(tmp_path / "right")


def test_trees_made_alike_do_not_differ(pair):
    left, right = map(scan, pair)
    assert differences(left, right) == []
    assert len(left) == 7


def test_a_scan_tells_type_content_target_and_attributes(pair):
    rows = scan(pair[0])
    assert rows[b"link"] == Row("symlink", 0o777, os.getuid(), os.getgid(), 10**18, 8, target=b"bin/tool")
    assert rows[b"bin/tool"].xattrs == {"user.note": b"\x00\xff"}
    assert rows[b"queue"].type == "fifo"
    assert rows[b"bin"].size == 0


def rewrite(path: Path, data: bytes) -> None:
    """Other content, same inode, same mtime."""
    mtime_ns = os.lstat(path).st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(0, mtime_ns))


def retarget(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)
    os.utime(path, ns=(0, 10**18), follow_symlinks=False)


def split_link(path: Path) -> None:
    """A file of its own where a hard link was, alike in all else."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.setxattr(path, "user.note", b"\x00\xff")
    os.utime(path, ns=(0, 10**18))
    os.utime(path.parent, ns=(0, 10**18))


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o644)
    os.utime(path, ns=(0, 10**18))


CHANGES = {
    "content": (lambda top: rewrite(top / "bin/tool", b"#!/bin/rc\n"), "sha256"),
    "size": (lambda top: rewrite(top / "bin/tool", b""), "size"),
    "mode": (lambda top: os.chmod(top / "bin", 0o700), "mode"),
    "sticky bit": (lambda top: os.chmod(top / "bin", 0o1755), "mode"),
    "symlink target": (lambda top: retarget(top / "link", "bin/tooth"), "target"),
    "hard link": (lambda top: split_link(top / "bin/alias"), "link_group"),
    "mtime": (lambda top: os.utime(top / "bin", ns=(0, 2 * 10**18)), "mtime_ns"),
    "mtime of a symlink": (lambda top: os.utime(top / "link", ns=(0, 1), follow_symlinks=False), "mtime_ns"),
    "xattr value": (lambda top: os.setxattr(top / "bin/tool", "user.note", b"\x00"), "xattrs"),
    "xattr gone": (lambda top: os.removexattr(top / "bin/tool", "user.note"), "xattrs"),
    "type": (lambda top: replace_by_directory(top / os.fsdecode(b"caf\xe9")), "type"),
    "entry gone": (lambda top: (top / "queue").unlink(), "only left"),
    "entry added": (lambda top: (top / "new").touch(), "only right"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_kind_of_difference_is_found(pair, kind):
    change, sign = CHANGES[kind]
    change(pair[1])
    assert any(sign in line for line in differences(*map(scan, pair)))


def test_owner_and_device_number_differences_are_found(pair):
    need_root()
    left, right = pair
    os.chown(right / "bin" / "tool", 12, 34)
    for top, minor in ((left, 3), (right, 5)):
        os.mknod(top / "null", 0o20666, os.makedev(1, minor))
    lines = "\n".join(differences(*map(scan, pair)))
    assert "'bin/tool': uid 0 left, 12 right" in lines
    assert "'bin/tool': gid 0 left, 34 right" in lines
    assert "'null': device (1, 3) left, (1, 5) right" in lines


def test_a_difference_names_path_field_and_both_values(pair):
    os.chmod(pair[1] / "queue", 0o600)
    os.chmod(pair[0] / "queue", 0o4755)
    assert differences(*map(scan, pair)) == ["'queue': mode 0o4755 left, 0o600 right"]


def test_names_that_are_no_utf8_are_told_apart_in_printable_lines(pair):
    (pair[1] / os.fsdecode(b"caf\xe9")).unlink()
    os.utime(pair[1], ns=(0, 10**18))
    assert differences(*map(scan, pair)) == [r"'caf\xe9': only left (file)"]


def test_a_fraction_of_a_second_counts_only_where_both_sides_have_one(pair):
    left, right = pair
    os.utime(right / "bin", ns=(0, 10**18 + 500))
    assert differences(scan(left), scan(right)) == []
    os.utime(left / "bin", ns=(0, 10**18 + 400))
    assert len(differences(scan(left), scan(right))) == 1


def test_links_across_directories_form_no_group(pair):
    os.link(pair[0] / "link", pair[0] / "bin" / "far", follow_symlinks=False)
    assert scan(pair[0])[b"link"].link_group == b""


def test_a_link_group_is_named_after_its_first_name(pair):
    rows = scan(pair[0])
    assert rows[b"bin/tool"].link_group == rows[b"bin/alias"].link_group == b"alias"


def test_ignored_fields_are_not_compared_and_must_exist(pair):
    os.chmod(pair[1] / "bin", 0o700)
    assert differences(*map(scan, pair), ignore={"mode"}) == []
    with pytest.raises(AssertionError):
        differences({}, {}, ignore={"colour"})


def test_links_are_not_followed_out_of_the_tree(tmp_path, pair):
    (pair[0] / "out").symlink_to(tmp_path)
    assert not any(path.startswith(b"out/") for path in scan(pair[0]))


def test_sockets_are_shown_and_not_read(pair, monkeypatch):
    monkeypatch.chdir(pair[0])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert scan(pair[0])[b"s"].type == "socket"


def test_a_tree_can_be_cut_down_to_a_part(pair):
    rows = scan(pair[0])
    assert set(subtree(rows, b"bin")) == {b"", b"alias", b"tool"}
    assert set(without(rows, b"bin", b"")) == {b"link", b"queue", b"caf\xe9"}


def test_attributes_of_a_prefix_can_be_left_out(pair):
    os.setxattr(pair[1] / "bin", "user.overlay.opaque", b"y")
    right = without_xattrs(scan(pair[1]), "user.overlay.", "trusted.overlay.")
    assert differences(scan(pair[0]), right) == []


def test_a_copy_that_keeps_everything_but_links_differs_only_in_links(pair, tmp_path):
    shutil.copytree(pair[0], tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("queue"))
    fields = {line.split(": ")[1].split(" ")[0] for line in differences(scan(pair[0]), scan(tmp_path / "copy"))}
    assert fields <= {"link_group", "only", "mtime_ns"}
