"""Newer containerd beside its own overlayfs snapshotter: no published layer is fetched, and containers see the same.

`ctr` is the one of the same version, run where its containerd is.
"""

import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from snapshotter.settings import DEFAULT_ADDRESS
from tests.builders import Image, Layer, directory, file, push
from tests.containerd import NAME, Containerd
from tests.end_to_end.published import repository
from tests.end_to_end.test_snapshotter import CAPABILITY, DERIVED, IMAGES, SETTINGS, Node, mount_in_a_page
from tests.images.small import system
from tests.leftovers import mounts
from tests.needs import need_fuse, need_root
from tests.newer_containerd import running_newer_containerd
from tests.registry import Registry
from tests.snapshotter import running_snapshotter
from tests.trees import differences
from tests.unit.docs.pages import DOCS, Page

PAGE = Page(DOCS / "engines" / "containerd.md")
HEADINGS = {
    "trixie": "For the whole node: 1.6 and 1.7",
    "sid": "For the whole node: 2.1 and newer, by the transfer service",
}
FETCHED_BY_CTR = {"trixie": ["0.0", "0.1"], "sid": []}  # as the page on ctr says
BY_CTR = Image(
    [Layer.of(*system(), file("first")), Layer.of(directory("etc"), file("etc/motd", b"by ctr\n"))], SETTINGS
)
PUBLISHED = IMAGES | {"by-ctr": BY_CTR}
LOCAL = {"trixie": (), "sid": ("--local",)}  # the transfer service unpacks for those alone that it was told of


@pytest.fixture(scope="module", params=HEADINGS)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def node(suite: str, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("ctr")
    for name, image in (PUBLISHED | {"derived": DERIVED}).items():
        push(registry.host, f"node/{name}", "latest", image)
    (tables,) = PAGE.below(HEADINGS[suite])
    with repository(top / "repository") as made:
        made.convert(*(f"http://{registry.host}/node/{name}:latest" for name in PUBLISHED))
        with (
            made.served() as url,
            made.mounted(url) as mountpoint,
            running_snapshotter(top / "s", (made.fqrn, mountpoint)) as program,
        ):
            settings = tables.replace(str(DEFAULT_ADDRESS), str(program.address))
            with running_newer_containerd(suite, top / "c", top, settings) as kubelet:
                enter = ("nsenter", "--mount", "--target", str(process_at(kubelet.address)))
                yield Node(registry, made, url, mountpoint, program, Containerd(top / "c", enter))
        assert mounts(top) == []


def process_at(address: Path) -> int:
    """Who listens there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address))
        process: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return process


@pytest.mark.parametrize("name", IMAGES)
def test_the_container_sees_what_overlayfs_would_have_shown(name: str, node: Node, suite: str, tmp_path: Path) -> None:
    reference, image = node.reference(name), IMAGES[name]
    with node.fetching(image) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == []
    ours = node.tree(image, NAME, tmp_path / "ours")
    pull = ("images", "pull", *LOCAL[suite], "--plain-http", "--snapshotter", "overlayfs")
    node.containerd.ctr(*pull, reference)
    theirs = node.tree(image, "overlayfs", tmp_path / "theirs")
    assert (ours[b"bin/binder"].xattrs or {})["security.capability"] == CAPABILITY
    for path in {b"passed"} & ours.keys():  # a layer passes through it, and unpacking makes it as new as the pull
        theirs[path] = replace(theirs[path], mtime_ns=ours[path].mtime_ns)
    assert differences(ours, theirs) == []


def test_what_a_container_wrote_is_committed_used_again_and_removed(node: Node, tmp_path: Path) -> None:
    reference, ctr = node.reference("derived"), node.containerd.ctr
    with node.fetching(DERIVED) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == ["0.2"]
    snapshots = ("snapshots", "--snapshotter", NAME)
    command = "rm /etc/motd-again; cat /opt/own >/home/news; cat /etc/motd"
    said = ctr("run", "--snapshotter", NAME, reference, "author", "/bin/sh", "-c", command).stdout
    ctr("tasks", "rm", "author", status=None)
    ctr(*snapshots, "commit", "edition", "author")
    mount_in_a_page(ctr(*snapshots, "prepare", "--target", tmp_path, "next", "edition").stdout)
    try:
        seen = {path.name: path.read_text() for path in (*tmp_path.glob("etc/motd*"), tmp_path / "home" / "news")}
    finally:
        subprocess.run(["umount", tmp_path], check=True)
        ctr("containers", "rm", "author", status=None)
        for name in ("next", "edition"):
            ctr(*snapshots, "rm", name)
    assert said == "changed\n"
    assert seen == {"motd": "changed\n", "news": "not published"}
    ctr("images", "rm", "--sync", reference)
    assert [line for line in mounts(node.containerd.directory) if "overlay" in line] == []


def test_a_pull_by_ctr_fetches_what_the_page_says(node: Node, suite: str) -> None:
    reference, elsewhere = node.reference("by-ctr"), partial(node.containerd.ctr, namespace="elsewhere")
    with node.fetching(BY_CTR) as fetched:
        elsewhere("images", "pull", "--plain-http", "--snapshotter", NAME, reference)
    assert fetched == FETCHED_BY_CTR[suite]
    said = elsewhere("run", "--rm", "--snapshotter", NAME, reference, "plain", "/bin/cat", "/etc/motd").stdout
    assert said == "by ctr\n"
    elsewhere("images", "rm", "--sync", reference)
