"""A layer's directory as an archive, and back: nothing of it is lost that a layer can say."""

import io
import os
import socket
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from graphdriver.archive import FileChanged, archive_of_changes, archive_of_layer
from graphdriver.changes import tree_changes
from graphdriver.directory import OPAQUE, Below
from graphdriver.unpack import unpack
from tests.needs import need_root
from tests.trees import Tree, differences, scan

LONG = "n" * 200


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """One entry of everything that a layer can have."""
    need_root()
    layer = tmp_path / "layer"
    (layer / "d" / LONG / LONG).mkdir(parents=True)
    (layer / "d" / LONG / LONG / "deep").write_text("deep")
    (layer / "file").write_bytes(os.urandom(3_000_001))
    (layer / "file").chmod(0o4755)
    os.chown(layer / "file", 70000, 3_000_000)
    (layer / "file").chmod(0o6755)
    os.setxattr(layer / "file", "user.binary", bytes(range(256)))
    os.setxattr(layer / "file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.link(layer / "file", layer / "second")
    (layer / os.fsdecode(b"not \xff utf-8 \n")).write_text("x")
    (layer / "é").symlink_to(os.fsdecode(b"\xfe" * 150))
    os.mkfifo(layer / "fifo")
    os.mknod(layer / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(layer / "gone", stat.S_IFCHR)
    (layer / "opaque").mkdir(mode=0o700)
    os.setxattr(layer / "opaque", OPAQUE, b"y")
    return layer


def in_seconds(tree: Tree) -> Tree:
    return {path: replace(row, mtime_ns=row.mtime_ns // 10**9 * 10**9) for path, row in tree.items() if path}


def unpacked(archive: bytes, directory: Path) -> Tree:
    directory.mkdir()
    unpack(io.BytesIO(archive), directory, Below(()), "layer x")
    return in_seconds(scan(directory))


def without_whiteouts(tree: Tree) -> Tree:
    """Whiteouts have no time, owner or mode of their own."""
    return {path: row for path, row in tree.items() if row.device != (0, 0)}


def test_a_layer_comes_back_as_it_went(layer: Path, tmp_path: Path) -> None:
    archive = b"".join(archive_of_layer(layer))
    seen = unpacked(archive, tmp_path / "again")
    assert differences(without_whiteouts(seen), without_whiteouts(in_seconds(scan(layer)))) == []
    assert seen[b"gone"].device == (0, 0)
    assert os.getxattr(tmp_path / "again" / "opaque", OPAQUE) == b"y"
    assert b"".join(archive_of_layer(tmp_path / "again")) == archive


def test_other_readers_understand_the_archive(layer: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive_of_layer(layer)))) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert members["second"].linkname == "file"
    assert (members["file"].uid, members["file"].gid, members["file"].size) == (70000, 3_000_000, 3_000_001)
    assert members[".wh.gone"].isfile()
    assert members["opaque/.wh..wh..opq"].isfile()
    assert f"d/{LONG}/{LONG}/deep" in members


def test_changes_of_everything_are_the_whole_tree(layer: Path, tmp_path: Path) -> None:
    (layer / "gone").unlink()
    os.removexattr(layer / "opaque", OPAQUE)
    archive = b"".join(archive_of_changes(layer, tree_changes(None, layer)))
    assert differences(unpacked(archive, tmp_path / "again"), in_seconds(scan(layer))) == []


def test_sockets_are_left_out_and_overlayfs_keeps_its_own_attributes(tmp_path: Path) -> None:
    need_root()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        (tmp_path / "f").touch()
        os.setxattr(tmp_path / "f", "trusted.overlay.origin", b"x")
        os.setxattr(tmp_path / "f", "trusted.other", b"x")
        archive = b"".join(archive_of_layer(tmp_path))
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        (member,) = opened.getmembers()
    assert (member.name, member.pax_headers) == ("f", {})


def test_a_file_that_becomes_shorter_breaks_the_archive_off(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(4 << 20))
    pieces = archive_of_layer(tmp_path)
    next(pieces)
    next(pieces)
    os.truncate(tmp_path / "f", 10)
    with pytest.raises(FileChanged, match="became shorter"):
        list(pieces)


def test_a_directory_that_becomes_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    top = tmp_path / "top"
    (top / "d").mkdir(parents=True)
    (top / "a").touch()
    pieces = archive_of_layer(top)
    first = next(pieces)  # of `a`: `d` has been listed, and has not been looked into
    (top / "d").rmdir()
    (top / "d").symlink_to(tmp_path / "secret")
    archive = first + b"".join(pieces)
    assert b"key" not in archive
