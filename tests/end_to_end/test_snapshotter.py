"""A real containerd with our snapshotter: published images start, others work as ever, and nothing stays behind.

The registry's access log says what was fetched; the overlayfs snapshotter says what a container must see.
"""

import contextlib
import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path

import pytest

from tests.builders import Image, Layer, directory, file, hard_link, opaque, push, sha256, symlink, whiteout
from tests.containerd import NAME, Containerd, running_containerd
from tests.end_to_end.published import Published, repository
from tests.golang import built
from tests.images.small import system
from tests.leftovers import mounts
from tests.needs import need_fuse, need_root
from tests.registry import Registry
from tests.snapshotter import Program, running_snapshotter
from tests.trees import Tree, differences, scan, without, without_xattrs

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective
RECONNECT_SECONDS = 60
SETTINGS = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}


def base() -> Layer:
    return Layer.of(
        *system(),
        file("bin/as-root", b"#!/bin/sh\n", mode=0o4755),
        file("bin/binder", b"#!/bin/sh\n", mode=0o755, xattrs={"security.capability": CAPABILITY}),
        file("usr/share/old/three", b"3"),
        symlink("lib", "usr/lib"),
    )


def changes() -> Layer:
    return Layer.of(
        directory("etc"),
        file("etc/motd", b"changed\n"),
        whiteout("etc/group"),
        directory("usr"),
        directory("usr/share"),
        directory("usr/share/old", mode=0o711),
        opaque("usr/share/old"),
        file("usr/share/old/new", b"new"),
        hard_link("etc/motd-again", "etc/motd"),
    )


def variant(name: bytes, mode: int) -> Layer:
    """What the same layer finds below it: a file that it deletes, one that it links to, and a directory on its way."""
    return Layer.of(
        directory("etc"), file("etc/target", name), file(b"etc/only-" + name), directory("passed", mode=mode, uid=7),
        file("passed/below", name),
    )  # fmt: skip


def shared() -> Layer:
    return Layer.of(directory("etc"), whiteout("etc/only-second"), file("passed/above", b"a"))


def linking() -> Layer:
    """What containerd itself can't unpack: a hard link to a file of a lower layer."""
    return Layer.of(directory("etc"), hard_link("etc/linked", "etc/target"))


def deep(number: int) -> Layer:
    """One of many: a file, over one that goes, and one of all layers that is changed again and again."""
    return Layer.of(
        directory("deep"), file(f"deep/{number}", b"%d" % number), whiteout(f"deep/{number - 3}"),
        file("deep/all", b"%d" % number, mode=0o4755 if number % 2 else 0o600),
    )  # fmt: skip


PUBLISHED = Image([base(), changes()], SETTINGS)
DERIVED = Image([base(), changes(), Layer.of(directory("opt"), file("opt/own", b"not published"))], SETTINGS)
FIRST, SECOND, LINKING_FIRST, LINKING_SECOND = (
    Image([base(), variant(name, mode), top], {**SETTINGS, "Labels": {"which": name.decode()}})
    for top in (shared(), linking())
    for name, mode in ((b"first", 0o711), (b"second", 0o750))
)
DEEP = Image([base(), *(deep(number) for number in range(3, 73))], SETTINGS)
PAUSE = Image([Layer.of(*system())], {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sleep", "100000"]})
IMAGES = {"published": PUBLISHED, "first": FIRST, "second": SECOND, "deep": DEEP}
EVERYTHING = IMAGES | {"linking-first": LINKING_FIRST, "linking-second": LINKING_SECOND}  # that is published
FOREIGN = Image([Layer.of(*system(), file("foreign", b"nowhere published"))], SETTINGS)


def chain_id(image: Image) -> str:
    """What containerd calls all layers of the image together."""
    return reduce(lambda below, diff: sha256(f"{below} {diff}".encode()), [layer.diff_id for layer in image.layers])


@dataclass
class Node:
    """A machine with a repository's mount, the snapshotter and containerd."""

    registry: Registry
    made: Published
    url: str
    mountpoint: Path
    snapshotter: Program
    containerd: Containerd

    def reference(self, name: str) -> str:
        return f"{self.registry.host}/node/{name}:latest"

    def mount(self) -> None:
        self.mount_at(self.mountpoint)

    def mount_at(self, place: Path, *options: str) -> None:
        client = ["--url", self.url, "--public-key", self.made.public_key, "--cache", self.made.directory / "cache"]
        self.made.ducc("mount", self.made.fqrn, place, *client, *options)

    def unmount(self) -> None:
        self.unmount_at(self.mountpoint)

    def unmount_at(self, place: Path) -> None:
        """Also where some other test's mount namespace has a copy of the mount, and would keep its client alive."""
        self.made.unmount(place)
        self.kill_client(place)

    def kill_client(self, place: Path | None = None) -> None:
        for process in clients_of(place or self.mountpoint):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, 9)

    def restart(self) -> None:
        """Start the snapshotter that was killed; containerd tries to connect anew every few seconds."""
        self.snapshotter.start()
        deadline = time.monotonic() + RECONNECT_SECONDS
        snapshots = ["snapshots", "--snapshotter", NAME]
        while self.containerd.ctr(*snapshots, "prepare", "probe", status=None).returncode:
            assert time.monotonic() < deadline, "containerd does not connect again"
            time.sleep(0.2)
        self.containerd.ctr(*snapshots, "rm", "probe")

    def tree(self, image: Image, snapshotter: str, place: Path) -> Tree:
        """What a new container of *image* sees, less the mark by which rootless overlays know opaque directories."""
        place.mkdir()
        snapshots = ["snapshots", "--snapshotter", snapshotter]
        mount = self.containerd.ctr(*snapshots, "prepare", "--target", place, "seen", chain_id(image)).stdout
        mount_in_a_page(mount)
        try:
            return without_xattrs(without(scan(place), b""), "user.overlay.")  # the root is as new as the container
        finally:
            subprocess.run(["umount", place], check=True)
            self.containerd.ctr(*snapshots, "rm", "seen")

    @contextmanager
    def fetching(self, *images: Image) -> Iterator[list[str]]:
        """Layers of *images* that the registry is asked for within the block, by index of image and layer."""
        before, fetched = len(self.registry.blob_fetches()), []
        yield fetched
        names = {
            sha256(layer.blob): f"{i}.{j}" for i, image in enumerate(images) for j, layer in enumerate(image.layers)
        }
        found = [request.path.split("/")[-1] for request in self.registry.blob_fetches()[before:]]
        fetched += sorted(names[digest] for digest in found if digest in names)


def mount_in_a_page(command: str) -> None:
    """Do what `ctr` says, as containerd itself would: with lowers relative to the directory that all are in."""
    directory, lowers = Path("/"), re.search(r"lowerdir=(\S+)", command)
    if lowers is not None:
        directory = Path(os.path.commonpath(lowers[1].split(":")))
        command = command.replace(lowers[1], lowers[1].replace(f"{directory}/", ""))
    subprocess.run(["sh", "-c", command], cwd=directory, check=True)


@pytest.fixture(scope="module")
def node(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("node")
    for name, image in (EVERYTHING | {"derived": DERIVED, "foreign": FOREIGN, "pause": PAUSE}).items():
        push(registry.host, f"node/{name}", "latest", image)
    mountpoint = top / "cvmfs"
    mountpoint.mkdir()
    with repository(top / "repository") as made:
        made.convert(*(f"http://{registry.host}/node/{name}:latest" for name in EVERYTHING))
        with (
            made.served() as url,
            running_snapshotter(top / "s", (made.fqrn, mountpoint)) as program,
        ):
            with running_containerd(top / "c", program.address, f"{registry.host}/node/pause:latest") as containerd:
                running = Node(registry, made, url, mountpoint, program, containerd)
                running.mount()
                yield running
            made.unmount(mountpoint)
        assert mounts(top) == []


# --- what is published is not fetched --------------------------------------------------------


def test_a_published_image_runs_and_not_one_layer_is_fetched(node: Node) -> None:
    reference = node.reference("published")
    with node.fetching(PUBLISHED) as fetched:
        node.containerd.kubelet.pull(reference)
        said = node.containerd.run(
            reference, "first", "/bin/sh", "-c", "cat /etc/motd; echo mine >/etc/own && cat /etc/own; ls /usr/share/old"
        )
    assert said == "changed\nmine\nnew\n"
    assert fetched == []
    log = node.snapshotter.log.read_text()
    for layer in PUBLISHED.layers:
        assert len(re.findall(f"started from the repository: .*{sha256(layer.blob)}", log)) == 1
    assert [line for line in mounts(node.containerd.directory) if "overlay" in line] == []


def test_a_kubelet_runs_a_pod_of_published_layers(node: Node) -> None:
    kubelet, reference = node.containerd.kubelet, node.reference("published")
    with node.fetching(PUBLISHED) as fetched, kubelet.pod("web") as sandbox:
        kubelet.pull(reference)
        container = kubelet.start(sandbox, "web", "main", reference, "/bin/sh", "-c", "cat /etc/motd; sleep 1000")
        write = "echo x >/home/own; cat /home/own /usr/share/old/new"
        assert kubelet.execute(container, "/bin/sh", "-c", write) == "x\nnew"
        log = kubelet.logs / "main.log"
        deadline = time.monotonic() + 60
        while not log.exists() or b"changed" not in log.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        kubelet.remove(container)
    assert fetched == []
    assert [line for line in mounts(node.containerd.directory) if "overlay" in line] == []


def test_an_image_that_is_removed_leaves_no_snapshot_and_comes_back(node: Node) -> None:
    reference = node.reference("published")
    node.containerd.kubelet.pull(reference)
    node.containerd.kubelet.remove_image(reference)
    node.containerd.ctr("content", "prune", "references")  # containerd collects its garbage
    deadline = time.monotonic() + 60
    while (left := {chain_id(PUBLISHED)} & set(node.containerd.snapshots())) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    with node.fetching(PUBLISHED) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == []
    assert node.containerd.run(reference, "back", "/bin/cat", "/etc/motd") == "changed\n"


@pytest.mark.parametrize("name", IMAGES)
def test_the_container_sees_what_overlayfs_would_have_shown(name: str, node: Node, tmp_path: Path) -> None:
    reference = node.reference(name)
    with node.fetching(IMAGES[name]) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == []
    ours = node.tree(IMAGES[name], NAME, tmp_path / "ours")
    node.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference)
    theirs = node.tree(IMAGES[name], "overlayfs", tmp_path / "theirs")
    assert ours[b"bin/as-root"].mode == 0o4755
    assert (ours[b"bin/binder"].xattrs or {})["security.capability"] == CAPABILITY
    for path in {b"passed"} & ours.keys():  # a layer passes through it, and unpacking makes it as new as the pull
        theirs[path] = replace(theirs[path], mtime_ns=ours[path].mtime_ns)
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_link_to_a_lower_layer_is_the_file_of_this_images_layer(which: str, node: Node) -> None:
    reference = node.reference(f"linking-{which}")
    with node.fetching(EVERYTHING[f"linking-{which}"]) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == []
    assert node.containerd.run(reference, "linking", "/bin/cat", "/etc/linked") == which


def test_images_that_are_not_published_work_as_ever(node: Node) -> None:
    reference = node.reference("foreign")
    with node.fetching(FOREIGN) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == ["0.0"]
    assert node.containerd.run(reference, "foreign", "/bin/cat", "/foreign") == "nowhere published"


def test_of_an_image_that_is_published_in_part_the_rest_is_fetched(node: Node, tmp_path: Path) -> None:
    reference = node.reference("derived")
    with node.fetching(DERIVED) as fetched:
        node.containerd.kubelet.pull(reference)
    assert fetched == ["0.2"]
    assert node.containerd.run(reference, "derived", "/bin/cat", "/opt/own", "/etc/motd") == "not publishedchanged\n"
    ours = node.tree(DERIVED, NAME, tmp_path / "ours")
    node.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference)
    assert differences(ours, node.tree(DERIVED, "overlayfs", tmp_path / "theirs")) == []


def test_a_pull_by_ctr_which_says_no_digests_works_as_ever(node: Node) -> None:
    reference, other = node.reference("published"), partial(node.containerd.ctr, namespace="other")
    other("images", "pull", "--plain-http", "--snapshotter", NAME, reference)
    assert (
        other("run", "--rm", "--snapshotter", NAME, reference, "plain", "/bin/cat", "/etc/motd").stdout == "changed\n"
    )
    other("images", "rm", "--sync", reference)


CLIENT = """
package main

import (
	"context"
	"os"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/pkg/snapshotters"
	"github.com/containerd/containerd/remotes/docker"
)

// Arguments: containerd's socket, a namespace, a snapshotter, a reference.
func main() {
	client, err := containerd.New(os.Args[1])
	if err == nil {
		ctx := namespaces.WithNamespace(context.Background(), os.Args[2])
		hosts := docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts))
		_, err = client.Pull(ctx, os.Args[4], containerd.WithPullUnpack, containerd.WithPullSnapshotter(os.Args[3]),
			containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{Hosts: hosts})),
			containerd.WithImageHandlerWrapper(snapshotters.AppendInfoHandlerWrapper(os.Args[4])))
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}
"""


def test_a_program_that_pulls_by_containerds_library_and_annotates_fetches_no_layer(node: Node, tmp_path: Path) -> None:
    needs = "github.com/containerd/containerd/pkg/snapshotters"
    client = built(tmp_path, CLIENT, package="golang-github-containerd-containerd-dev", needs=needs)
    reference, space = node.reference("published"), "by-library"
    with node.fetching(PUBLISHED) as fetched:
        subprocess.run([client, node.containerd.address, space, NAME, reference], check=True)
    assert fetched == []
    there = partial(node.containerd.ctr, namespace=space)
    assert there("run", "--rm", "--snapshotter", NAME, reference, "x", "/bin/cat", "/etc/motd").stdout == "changed\n"
    there("images", "rm", "--sync", reference)


def test_a_container_is_committed_and_run_again(node: Node, tmp_path: Path) -> None:
    reference = node.reference("published")
    node.containerd.kubelet.pull(reference)
    node.containerd.ctr("run", "--snapshotter", NAME, reference, "author", "/bin/sh", "-c", "echo new >/home/news")
    node.containerd.ctr("tasks", "rm", "author", status=None)
    try:
        node.containerd.ctr("snapshots", "--snapshotter", NAME, "commit", "edition", "author")
        node.containerd.ctr("snapshots", "--snapshotter", NAME, "view", "reading", "edition")
        told = node.containerd.ctr("snapshots", "--snapshotter", NAME, "mounts", tmp_path, "reading").stdout
        subprocess.run(["sh", "-c", told], check=True)
        assert (tmp_path / "home" / "news").read_text() == "new\n"
        assert (tmp_path / "etc" / "motd").read_text() == "changed\n"
        subprocess.run(["umount", tmp_path], check=True)
    finally:
        node.containerd.ctr("containers", "rm", "author", status=None)
        for name in ("reading", "edition", "author"):
            node.containerd.ctr("snapshots", "--snapshotter", NAME, "rm", name, status=None)


def test_fifty_containers_of_one_image_start_at_once(node: Node) -> None:
    reference = node.reference("published")
    node.containerd.kubelet.pull(reference)

    def say(number: int) -> str:
        return node.containerd.run(reference, f"many-{number}", "/bin/sh", "-c", f"echo {number} >/n; cat /n")

    with ThreadPoolExecutor(50) as crowd:
        assert list(crowd.map(say, range(50))) == [f"{number}\n" for number in range(50)]


# --- restarts and losses ---------------------------------------------------------------------


@contextmanager
def sleeping(node: Node, name: str) -> Iterator[None]:
    """A container that runs until the block ends."""
    reference = node.reference("published")
    node.containerd.kubelet.pull(reference)
    node.containerd.ctr("run", "--detach", "--snapshotter", NAME, reference, name, "/bin/sleep", "10000")
    try:
        yield
    finally:
        node.containerd.ctr("tasks", "rm", "--force", name)
        node.containerd.ctr("containers", "rm", name)


def inside(node: Node, name: str, command: str) -> str:
    execution = f"x{time.monotonic_ns()}"
    return node.containerd.ctr("tasks", "exec", "--exec-id", execution, name, "/bin/sh", "-c", command).stdout


def test_containers_run_on_while_the_snapshotter_is_killed_and_started(node: Node) -> None:
    with sleeping(node, "survivor"):
        inside(node, "survivor", "echo before >/home/kept")
        node.snapshotter.kill()
        assert inside(node, "survivor", "cat /etc/motd /home/kept") == "changed\nbefore\n"
        node.restart()
        assert inside(node, "survivor", "cat /home/kept; cat /usr/share/old/new") == "before\nnew"
        assert node.containerd.run(node.reference("published"), "later", "/bin/cat", "/etc/motd") == "changed\n"


def test_a_snapshot_removed_while_the_snapshotter_is_down_goes_later(node: Node) -> None:
    with sleeping(node, "short"):
        node.snapshotter.kill()
    node.restart()
    reference = node.reference("published")
    node.containerd.run(reference, "after", "/bin/true")
    node.containerd.ctr("content", "prune", "references")  # containerd collects its garbage
    deadline = time.monotonic() + 60
    while "short" in node.containerd.snapshots() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "short" not in node.containerd.snapshots()


def test_without_the_repository_new_containers_are_refused_clearly_until_it_is_back(node: Node) -> None:
    reference = node.reference("published")
    node.containerd.kubelet.pull(reference)
    node.unmount()
    refused = node.containerd.run(reference, "refused", "/bin/true", status=None)
    assert "unavailable" in refused
    assert f"is not mounted at {node.mountpoint}" in refused
    node.containerd.kubelet.pull(node.reference("foreign"))
    assert node.containerd.run(node.reference("foreign"), "unharmed", "/bin/cat", "/foreign") == "nowhere published"
    node.mount()
    assert node.containerd.run(reference, "again", "/bin/cat", "/etc/motd") == "changed\n"


def test_a_client_that_was_killed_costs_new_containers_an_error_and_comes_back(node: Node) -> None:
    reference = node.reference("published")
    node.containerd.kubelet.pull(reference)
    node.kill_client()
    refused = node.containerd.run(reference, "dead", "/bin/true", status=None)
    assert "unavailable" in refused
    subprocess.run(["umount", "--lazy", node.mountpoint], check=False)
    node.mount()
    assert node.containerd.run(reference, "alive", "/bin/cat", "/etc/motd") == "changed\n"


def clients_of(mountpoint: Path) -> list[int]:
    """Processes that show a repository there."""
    wanted = os.fsencode(mountpoint)
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if wanted in _arguments(process) and b"mount" in _arguments(process)
    ]


def _arguments(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


# --- the process itself ----------------------------------------------------------------------


def test_the_process_has_no_network_socket(node: Node) -> None:
    assert node.snapshotter.process is not None
    held = [os.readlink(entry) for entry in Path(f"/proc/{node.snapshotter.process.pid}/fd").iterdir()]
    numbers = {name[8:-1] for name in held if name.startswith("socket:")}
    for table in ("tcp", "tcp6", "udp", "udp6", "raw"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            assert line.split()[9] not in numbers
