"""A repository that is mounted twice, the second time without extended attributes, and what containers get from there.

What a container must see is what it sees over the repository's own mount, and over overlayfs.
"""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ducc.image.digest import Digest
from ducc.rootfs.locate import MountedRepository, stacked
from ducc.rootfs.second_mount import has_no_xattrs
from tests.builders import Image, Layer, directory, file, hard_link, opaque, push, sha256, symlink, whiteout
from tests.containerd import NAME, running_containerd
from tests.end_to_end import stock
from tests.end_to_end.published import repository
from tests.end_to_end.test_client_survival import drop_caches, kill_worker, wait_for_another
from tests.end_to_end.test_mount import Site, errno_of, site
from tests.end_to_end.test_snapshotter import (
    CAPABILITY,
    PAUSE,
    SETTINGS,
    Node,
    base,
    chain_id,
    changes,
    mount_in_a_page,
)
from tests.images.small import system
from tests.needs import need_fuse, need_root
from tests.registry import Registry
from tests.snapshotter import running_snapshotter
from tests.trees import Tree, differences, scan, without_xattrs

__all__ = ["site"]  # a fixture

PATIENCE_SECONDS = 60
BUSYBOX = next(entry.data for entry in system() if len(entry.data) > 1 << 16)


def without_attributes() -> Layer:
    """A layer on `base` and `changes` that has everything but attributes."""
    return Layer.of(
        directory("etc"),
        file("etc/motd", b"changed again\n"),
        whiteout("etc/motd-again"),
        directory("opt", mode=0o1777, uid=7, gid=8),
        file("opt/plain", b"plain\n" * 1000),
        file("opt/as-root", b"#!/bin/sh\n", mode=0o6755),
        hard_link("opt/linked", "opt/plain"),
        symlink("opt/link", "plain"),
        directory("usr"),
        directory("usr/share"),
        file("usr/share/more", b"more"),
    )


def users() -> Layer:
    return Layer.of(directory("opt"), file("opt/told", b"told", xattrs={"user.told": b"by a layer"}))


def capable() -> Layer:
    """A program that may do more than who runs it."""
    return Layer.of(
        directory("capable"), file("capable/cat", BUSYBOX, mode=0o755, xattrs={"security.capability": CAPABILITY})
    )


def hiding() -> Layer:
    return Layer.of(directory("opt"), opaque("opt"), file("opt/only", b"only"))


def deep(number: int) -> Layer:
    return Layer.of(directory("deep"), file(f"deep/{number}", b"%d" % number), whiteout(f"deep/{number - 3}"))


MIXED = Image([base(), changes(), without_attributes(), capable()], SETTINGS)
CAPABLE = Image(MIXED.layers, {**SETTINGS, "User": "1000"})
SMALL = Image([Layer.of(*system()), without_attributes(), users(), hiding()], SETTINGS)
DEEP = Image([Layer.of(*system()), *(deep(number) for number in range(3, 27))], SETTINGS)
LATER = Image([Layer.of(*system()), Layer.of(directory("etc"), file("etc/motd", b"later\n"))], SETTINGS)
IMAGES = {"mixed": MIXED, "small": SMALL, "deep": DEEP}
COME_FROM = {  # base first
    "mixed": ["own", "own", "second", "own"],
    "small": ["second", "second", "own", "own"],
    "deep": ["second"],  # all in one directory
}


@dataclass
class TwiceMounted(Node):
    """A machine with a second mount of the repository."""

    second: Path

    def mount_second(self, *options: str) -> None:
        self.mount_at(self.second, *options)

    def unmount_second(self) -> None:
        self.unmount_at(self.second)

    def run(self, name: str) -> str:
        """What a new container finds in a file that comes from the second mount if possible."""
        return self.containerd.run(self.reference(name), f"r{time.monotonic_ns()}", "/bin/cat", "/etc/motd")

    def come_from(self, image: Image) -> list[str]:
        """Which mounts a new container of *image* is given directories of, base first."""
        snapshots = ["snapshots", "--snapshotter", NAME]
        told = self.containerd.ctr(*snapshots, "prepare", "--target", "/nowhere", "asked", chain_id(image)).stdout
        self.containerd.ctr(*snapshots, "rm", "asked")
        links = re.search(r"lowerdir=([^,\s]+)", told)
        assert links is not None
        targets = [Path(os.readlink(link)) for link in links[1].split(":")]
        return ["second" if target.is_relative_to(self.second) else "own" for target in reversed(targets)]


@pytest.fixture(scope="module")
def node(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwiceMounted]:
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("twice")
    for name, image in (IMAGES | {"capable": CAPABLE, "later": LATER, "pause": PAUSE}).items():
        push(registry.host, f"node/{name}", "latest", image)
    with ExitStack() as opened:
        made = opened.enter_context(repository(top / "repository"))
        made.convert(*(f"http://{registry.host}/node/{name}:latest" for name in IMAGES))
        url = opened.enter_context(made.served())
        own, second = top / "own", top / "second"
        for place in (own, second):
            place.mkdir()
            opened.callback(made.unmount, place)
        program = opened.enter_context(running_snapshotter(top / "s", (made.fqrn, own, second)))
        pause = f"{registry.host}/node/pause:latest"
        containerd = opened.enter_context(running_containerd(top / "c", program.address, pause))
        running = TwiceMounted(registry, made, url, own, program, containerd, second)
        running.mount()
        running.mount_second("--no-xattrs")
        yield running


# --- the mount -------------------------------------------------------------------------------


def no_attributes(path: Path) -> bool:
    """Does the kernel say so, of whatever attribute?"""
    asked = (lambda: os.getxattr(path, "user.fqrn"), lambda: os.getxattr(path, "security.capability"))
    return {errno_of(ask) for ask in (*asked, lambda: os.listxattr(path))} == {errno.EOPNOTSUPP}


def test_a_mount_without_attributes_shows_the_same_tree_and_has_none(node: TwiceMounted) -> None:
    ours, theirs = (scan(top) for top in (node.second, node.mountpoint))
    assert any(row.xattrs for row in theirs.values())
    assert not any(row.xattrs for row in ours.values())
    assert differences(ours, without_all_xattrs(theirs)) == []
    assert no_attributes(node.second)


def without_all_xattrs(tree: Tree) -> Tree:
    return without_xattrs(tree, "")


def test_the_kernel_answers_for_attributes_by_itself(site: Site) -> None:
    """Whoever would ask the stopped client would wait for ever."""
    site.publish({b"/file": site.publisher.file(b"file", b"content")})
    site.mount("--no-xattrs")
    assert no_attributes(site.root / "file")
    stopped = kill_worker(site, signal.SIGSTOP)
    try:
        code = "import os, sys; os.getxattr(sys.argv[1], 'trusted.overlay.metacopy')"
        asked = subprocess.run(
            [sys.executable, "-c", code, site.root / "file"], capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
    assert "not supported" in asked.stderr


def test_a_mount_stays_without_attributes_whatever_becomes_of_its_process(site: Site) -> None:
    site.publish({b"/file": site.publisher.file(b"file", b"content")})
    site.mount("--no-xattrs")
    for change in (["reload"], ["upgrade"]):
        site.ducc("client", *change, site.root)
        assert no_attributes(site.root / "file")
    assert "revision" in site.ducc("client", "status", site.root).stdout
    assert "OK" in site.ducc("client", "probe", site.root).stdout
    wait_for_another(site, kill_worker(site))
    drop_caches()
    assert no_attributes(site.root / "file")
    assert (site.root / "file").read_bytes() == b"content"


# --- containers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_layers_without_attributes_come_from_there_and_the_container_sees_the_same(
    name: str, node: TwiceMounted, tmp_path: Path
) -> None:
    image, reference = IMAGES[name], node.reference(name)
    with node.fetching(image) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == []
    ours = node.tree(image, NAME, tmp_path / "ours")
    assert node.come_from(image) == COME_FROM[name]
    node.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference)
    assert differences(ours, node.tree(image, "overlayfs", tmp_path / "theirs")) == []
    node.unmount_second()
    try:
        own = node.tree(image, NAME, tmp_path / "own")
        assert "second" not in node.come_from(image)
    finally:
        node.mount_second("--no-xattrs")
    assert differences(ours, own) == []


def test_a_program_with_capabilities_has_them_on_layers_that_have_none(node: TwiceMounted) -> None:
    node.containerd.kubelet.pull(node.reference("capable"))
    run = ("run", "--rm", "--allow-new-privs", "--snapshotter", NAME, node.reference("capable"))
    said = {
        program: node.containerd.ctr(*run, f"as-{number}", program, "/proc/self/status").stdout
        for number, program in enumerate(("/bin/cat", "/capable/cat"))
    }
    effective = {program: int(text.split("CapEff:")[1].split()[0], 16) for program, text in said.items()}
    assert effective == {"/bin/cat": 0, "/capable/cat": 1 << 10}


def test_a_published_file_is_given_attributes_and_changed_in_a_container(node: TwiceMounted, tmp_path: Path) -> None:
    node.containerd.kubelet.pull(node.reference("mixed"))
    snapshots = ["snapshots", "--snapshotter", NAME]
    mount_in_a_page(node.containerd.ctr(*snapshots, "prepare", "--target", tmp_path, "changed", chain_id(MIXED)).stdout)
    try:
        plain, again = tmp_path / "opt" / "plain", tmp_path / "opt" / "as-root"
        os.setxattr(plain, "user.own", b"1")
        os.setxattr(again, "security.capability", CAPABILITY)
        with (tmp_path / "usr" / "share" / "more").open("a") as file:
            file.write(" of it")
        assert os.getxattr(plain, "user.own") == b"1"
        assert os.getxattr(again, "security.capability") == CAPABILITY
        assert plain.read_bytes() == b"plain\n" * 1000
        assert (tmp_path / "usr" / "share" / "more").read_text() == "more of it"
    finally:
        subprocess.run(["umount", tmp_path], check=True)
        node.containerd.ctr(*snapshots, "rm", "changed")


# --- losses and changes ----------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["unmounted", "killed"])
def test_while_the_second_mount_is_gone_containers_start_from_the_own_one(lost: str, node: TwiceMounted) -> None:
    node.containerd.kubelet.pull(node.reference("mixed"))
    assert node.run("mixed") == "changed again\n"
    assert node.come_from(MIXED) == COME_FROM["mixed"]
    lines = node.snapshotter.log.read_text().count("not used: mountpoint-without-xattrs")
    if lost == "killed":
        node.kill_client(node.second)
    else:
        node.unmount_second()
    for _ in range(2):
        assert node.run("mixed") == "changed again\n"
    assert node.come_from(MIXED) == ["own"] * 4
    assert node.snapshotter.log.read_text().count("not used: mountpoint-without-xattrs") == lines + 1
    node.mount_second("--no-xattrs")
    assert node.run("mixed") == "changed again\n"
    assert node.come_from(MIXED) == COME_FROM["mixed"]


def test_a_second_mount_that_has_attributes_is_not_used(node: TwiceMounted) -> None:
    node.containerd.kubelet.pull(node.reference("mixed"))
    node.unmount_second()
    node.mount_second()
    try:
        assert node.run("mixed") == "changed again\n"
        assert node.come_from(MIXED) == ["own"] * 4
        assert "mount it with --no-xattrs" in node.snapshotter.log.read_text()
    finally:
        node.unmount_second()
        node.mount_second("--no-xattrs")


def test_a_layer_that_only_the_own_mount_shows_yet_comes_from_there(node: TwiceMounted) -> None:
    node.made.convert(*(f"http://{node.registry.host}/node/{name}:latest" for name in (*IMAGES, "later")))
    node.made.ducc("client", "reload", node.mountpoint)
    with node.fetching(LATER) as fetched:
        node.containerd.kubelet.pull(node.reference("later"))
    assert fetched == []
    assert node.run("later") == "later\n"
    before = node.come_from(LATER)
    node.made.ducc("client", "reload", node.second)
    assert node.run("later") == "later\n"
    assert (before[-1], node.come_from(LATER)[-1]) == ("own", "second")


# --- what the first mount says ---------------------------------------------------------------


def trees_of(image: Image, root: Path) -> set[Path]:
    """The directories that containers of *image* may be given."""
    digests = [Digest.parse(sha256(layer.blob)) for layer in image.layers]
    diff_ids = [Digest.parse(layer.diff_id) for layer in image.layers]
    layers = stacked(digests, diff_ids)
    repository = MountedRepository("mounted", root)
    whole = [repository.whole(layers[-1:])[1]] if len(layers) > 20 else []
    return {*(repository.layer(layer) for layer in layers), *whole}


@pytest.mark.parametrize("client", ["ours", "stock"])
def test_what_a_client_says_of_attributes_in_a_layer_is_so(client: str, node: TwiceMounted) -> None:
    with ExitStack() as opened:
        if client == "stock":
            stock.need_stock()
            root = opened.enter_context(stock.mounted(node.made, node.url))
        else:
            root = node.mountpoint
        top = os.open(root, os.O_RDONLY)
        opened.callback(os.close, top)
        told = {}
        for tree in sorted(set().union(*(trees_of(image, root) for image in IMAGES.values()))):
            place = tree.relative_to(root)
            shown = scan(node.mountpoint / place)
            told[place] = has_no_xattrs(top, b"/" + bytes(place)), not any(row.xattrs for row in shown.values())
    assert {place for place, (said, true) in told.items() if said != true} == set()
    assert {said for said, _ in told.values()} == {True, False}
