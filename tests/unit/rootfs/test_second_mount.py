"""Layers without attributes come from a second mount, where that is there and what it should be; else nothing changes.

Directories stand for both mounts. What the kernel says of them, its table and attributes, is scripted.
"""

import errno
import logging
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ducc.client.mountpoint import MountEntry
from ducc.image.chain import chain_id
from ducc.image.digest import Digest
from ducc.rootfs import second_mount
from ducc.rootfs.locate import LayerAbsent, MountedRepository, RepositoryUnavailable, StackedLayer
from ducc.rootfs.second_mount import SecondMount, has_no_xattrs

FQRN = "images.test"
DIGEST, OTHER = Digest("1a" * 32), Digest("2b" * 32)
LAYER = StackedLayer(DIGEST, None, DIGEST)
UPPER = StackedLayer(OTHER, DIGEST, chain_id(DIGEST, OTHER))
PATIENCE_SECONDS = 60


def home(digest: Digest) -> Path:
    return Path(".layers", digest.hex[:2], digest.hex)


def counters(place: str, xattrs: int) -> str:
    return f"catalog_hash: {'0' * 40}\ncatalog_mountpoint: {place}\nchunked,0\ndir,7\nxattr,{xattrs}\n"


@dataclass
class Node:
    """A machine with a repository's own mount and a second one."""

    own: Path
    other: Path
    type: str = "fuse.ducc"
    fqrn: str = FQRN  # of the second mount
    has_attributes: bool = False  # that one
    said: dict[Path, str] = field(default_factory=dict)  # what the own mount says of a directory

    def __post_init__(self) -> None:
        self.repository = MountedRepository(FQRN, self.own, SecondMount(FQRN, self.other))

    def publish(self, digest: Digest, *tops: Path, xattrs: int = 0) -> None:
        """A layer that fits anywhere, on both mounts or on *tops*."""
        for top in tops or (self.own, self.other):
            (top / home(digest) / "layerfs").mkdir(parents=True)
            (top / home(digest) / ".metadata").mkdir()
            (top / home(digest) / ".metadata" / "anywhere").write_text(str(digest))
        place = home(digest) / "layerfs"
        self.said[self.own / place] = counters(f"/{place}", xattrs)

    def where(self, wanted: StackedLayer = LAYER) -> str:
        return self.repository.layer(wanted).relative_to(self.own.parent).parts[0]

    def mounts(self) -> list[MountEntry]:
        device = self.other.stat().st_dev
        return [MountEntry(f"{os.major(device)}:{os.minor(device)}", str(self.other), self.type, self.fqrn)]

    def attribute(self, descriptor: int, name: str) -> bytes:
        directory = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if directory.is_relative_to(self.other) and not self.has_attributes:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if name == "user.fqrn":
            return self.fqrn.encode()
        if directory not in self.said:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return self.said[directory].encode()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(tmp_path / "own", tmp_path / "other")
    made.own.mkdir()
    made.other.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == made.own)
    monkeypatch.setattr(os, "getxattr", made.attribute)
    monkeypatch.setattr(second_mount, "our_mounts", made.mounts)
    return made


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counters("/tree", 0), True),
        (counters("/tree", 1), False),
        (counters("/tree", 10), False),
        (counters("/tre", 0), False),  # another catalog's: one that begins above
        (counters("", 0), False),
        (counters("/tree", 0).replace("xattr,0\n", ""), False),  # of a client that does not say it
        (counters("/tree", 0).replace("xattr,0", "nested_xattr,0"), False),
        ("", False),
        (None, False),
    ],
)
def test_a_tree_has_no_attributes_only_by_the_word_of_the_catalog_that_begins_there(
    said: str | None, expected: bool, node: Node
) -> None:
    (node.own / "tree").mkdir()
    node.said |= {node.own / "tree": said} if said is not None else {}
    top = os.open(node.own, os.O_RDONLY)
    try:
        assert has_no_xattrs(top, b"/tree") is expected
        assert has_no_xattrs(top, b"/nowhere") is False
    finally:
        os.close(top)


def test_a_layer_without_attributes_comes_from_the_second_mount_and_one_with_some_does_not(node: Node) -> None:
    node.publish(DIGEST)
    node.publish(OTHER, xattrs=1)
    assert [node.where(layer) for layer in (LAYER, UPPER, LAYER, UPPER)] == ["other", "own", "other", "own"]


def test_a_whole_stack_comes_from_the_second_mount_by_the_same_rule(node: Node) -> None:
    place = home(OTHER) / "whole" / UPPER.stack.hex
    for top in (node.own, node.other):
        (top / place).mkdir(parents=True)
    node.said[node.own / place] = counters(f"/{place}", 0)
    for _ in range(2):
        assert node.repository.whole([LAYER, UPPER]) == (1, node.other / place)
    node.said[node.own / place] = counters(f"/{place}", 3)
    assert MountedRepository(FQRN, node.own, SecondMount(FQRN, node.other)).whole([UPPER]) == (0, node.own / place)


def test_a_layer_that_is_known_is_asked_for_only_where_it_is_given_from(node: Node) -> None:
    node.publish(DIGEST)
    assert node.where() == "other"
    shutil.rmtree(node.own)
    assert node.where() == "other"
    shutil.rmtree(node.other / ".layers")
    with pytest.raises(RepositoryUnavailable):
        node.where()


def test_a_layer_that_the_second_mount_does_not_have_yet_comes_from_the_own_one(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ducc")
    node.publish(DIGEST, node.own)
    assert [node.where(), node.where()] == ["own", "own"]
    node.publish(DIGEST, node.other)
    assert node.where() == "other"
    assert [record.levelname for record in caplog.records] == ["INFO"]  # that it is used, once


def test_what_only_the_second_mount_has_is_absent(node: Node) -> None:
    node.publish(DIGEST, node.other)
    with pytest.raises(LayerAbsent):
        node.where()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"other": Path("/nonexistent")}, "No such file"),
        ({"fqrn": "else.test"}, "the repository is not mounted there"),
        ({"has_attributes": True}, "mount it with --no-xattrs"),
    ],
)
def test_what_is_not_the_second_mount_is_not_used_and_that_is_said_once(
    change: dict[str, object], reason: str, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ducc")
    node.publish(DIGEST)
    node.publish(OTHER)
    for name, value in change.items():
        setattr(node.repository.second if name == "other" else node, name.replace("other", "mountpoint"), value)
    assert [node.where(layer) for layer in (LAYER, UPPER, LAYER)] == ["own", "own", "own"]
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert reason in said.getMessage()


def test_a_second_mount_that_is_lost_and_comes_back_costs_a_line_each_time(
    node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "ducc")
    node.publish(DIGEST)
    assert node.where() == "other"
    seen = os.fstatvfs

    def dead(descriptor: int) -> os.statvfs_result:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{node.other}/"):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return seen(descriptor)

    monkeypatch.setattr(os, "fstatvfs", dead)
    assert [node.where(), node.where()] == ["own", "own"]
    monkeypatch.setattr(os, "fstatvfs", seen)
    assert [node.where(), node.where()] == ["other", "other"]
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert "not connected" in caplog.records[1].getMessage()


def test_what_is_mounted_there_later_is_looked_at_anew(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.publish(DIGEST)
    assert node.where() == "other"
    node.fqrn = "else.test"
    os.utime(node.other, (1, 1))  # another root directory
    assert node.where() == "own"
    assert "not mounted there" in caplog.text


def test_a_second_mount_that_hangs_keeps_one_caller_and_no_more(
    node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.publish(DIGEST)
    assert node.where() == "other"
    monkeypatch.setattr(second_mount, "_LONG_SECONDS", 0.05)
    asked, answered = threading.Event(), threading.Event()
    seen = os.fstatvfs

    def hanging(descriptor: int) -> os.statvfs_result:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{node.other}/"):
            asked.set()
            answered.wait(PATIENCE_SECONDS)
        return seen(descriptor)

    monkeypatch.setattr(os, "fstatvfs", hanging)
    kept = threading.Thread(target=node.where)
    kept.start()
    try:
        assert asked.wait(PATIENCE_SECONDS)
        time.sleep(0.1)
        assert node.where() == "own"
    finally:
        answered.set()
        kept.join(PATIENCE_SECONDS)
    assert node.where() == "other"
    assert "does not answer" in caplog.text


def test_of_all_layers_of_a_container_each_mount_is_asked_once_whether_it_answers(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    third, fourth = Digest("3c" * 32), Digest("4d" * 32)
    stack = [LAYER, *(StackedLayer(one, DIGEST, chain_id(DIGEST, one)) for one in (OTHER, third, fourth))]
    for number, layer in enumerate(stack):
        node.publish(layer.digest, xattrs=number % 2)
    for layer in stack:
        node.where(layer)
    asked, seen = [], os.fstatvfs

    def counted(descriptor: int) -> os.statvfs_result:
        asked.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(node.own.parent).parts[0])
        return seen(descriptor)

    monkeypatch.setattr(os, "fstatvfs", counted)
    places = node.repository.layers(stack)
    assert [place.relative_to(node.own.parent).parts[0] for place in places] == ["other", "own"] * 2
    assert sorted(asked) == ["other", "own"]
    shutil.rmtree(node.other / home(third))
    shutil.rmtree(node.own / home(third))
    with pytest.raises(LayerAbsent):
        node.repository.layers(stack)
