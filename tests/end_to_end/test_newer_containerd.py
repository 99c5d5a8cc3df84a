"""The page on containerd as an operator follows it: newer versions start published images whose registry is down.

Each trial takes its configuration from the page, and changes nothing in it but where this test has its files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapshotter.settings import DEFAULT_ADDRESS
from tests.builders import Image, Layer, file, push, sha256
from tests.cri import Kubelet
from tests.end_to_end.published import repository
from tests.end_to_end.test_registry_mirror import PAUSE, PUBLISHED, mirror
from tests.images.small import system
from tests.leftovers import mounts
from tests.needs import need_fuse, need_root
from tests.newer_containerd import running_newer_containerd
from tests.registry import Registry, running_registry
from tests.snapshotter import Program, running_snapshotter
from tests.unit.docs.pages import DOCS, Page

PAGE = Page(DOCS / "engines" / "containerd.md")
MIRRORS = PAGE.below("The mirror")
OTHER_PAUSE = Image([Layer.of(*system(), file("not-published"))], {"Entrypoint": ["/bin/sleep", "100000"]})

# What tests need besides: no OOM scores, an image for sandboxes
V2 = """
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
"""
V3 = """
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
"""


@dataclass(frozen=True)
class Node:
    """A machine with a repository's mount, the snapshotter and the mirror; *dead* is the registry that is gone."""

    directory: Path
    dead: str
    alive: Registry
    snapshotter: Program
    mirror: str

    def settings(self, tables: str, pause: str) -> str:
        """*tables* of the page, and what is said there of mirrors, as they are on this machine."""
        mirrors, besides = (MIRRORS[0], V2) if tables.startswith("version = 2") else (MIRRORS[1], V3)
        text = tables + mirrors.partition("\n")[2] + besides.format(pause=pause)
        text = text.replace(str(DEFAULT_ADDRESS), str(self.snapshotter.address))
        return text.replace("/etc/containerd/certs.d", str(self.directory / "hosts"))


@pytest.fixture(scope="module")
def node(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("newer")
    push(registry.host, "newer/pause", "latest", OTHER_PAUSE)
    with repository(top / "repository") as made:
        with running_registry(top / "registry") as dead:
            push(dead.host, "node/published", "latest", PUBLISHED)
            push(dead.host, "node/pause", "latest", PAUSE)
            made.convert(*(f"http://{dead.host}/node/{name}:latest" for name in ("published", "pause")))
        with made.served() as url, made.mounted(url) as mountpoint:
            address = mirror(made, mountpoint)
            hosts = top / "hosts" / dead.host
            hosts.mkdir(parents=True)
            (hosts / "hosts.toml").write_text(f'[host."{address}"]\n  capabilities = ["pull", "resolve"]\n')
            with running_snapshotter(top / "s", (made.fqrn, mountpoint)) as program:
                yield Node(top, dead.host, registry, program, address)
        assert mounts(top) == []


@pytest.mark.parametrize(
    ("name", "suite", "heading"),
    [
        ("1.7", "trixie", "For the whole node: 1.6 and 1.7"),
        ("2.0", "sid", "For the whole node: 2.0, or client-side pulls of 2.1 and newer"),
        ("2.1", "sid", "For the whole node: 2.1 and newer, by the transfer service"),
    ],
)
def test_every_pod_of_a_node_starts_from_the_repository(node: Node, name: str, suite: str, heading: str) -> None:
    (tables,) = PAGE.below(heading)
    settings = node.settings(tables, f"{node.dead}/node/pause:latest")
    with running_newer_containerd(suite, node.directory / name, node.directory, settings) as kubelet:
        run_published(kubelet, f"{node.dead}/node/published:latest")


@pytest.mark.parametrize(("name", "suite", "number"), [("c1.7", "trixie", 0), ("c2.1", "sid", 1)])
def test_pods_of_the_class_start_from_the_repository_beside_others(
    node: Node, name: str, suite: str, number: int
) -> None:
    tables = PAGE.below("For pods that ask for it: a runtime of its own")[number]
    settings = node.settings(tables, f"{node.alive.host}/newer/pause:latest")
    directory = node.directory / name
    with running_newer_containerd(suite, directory, node.directory, settings, runtime_class="ducc") as kubelet:
        run_published(kubelet, f"{node.dead}/node/published:latest")
        with Kubelet(kubelet.address, kubelet.logs).pod("ordinary"):
            pass


def run_published(kubelet: Kubelet, reference: str) -> None:
    """Do what a kubelet does for a pod of the image: it runs, and what it writes stays its own."""
    with kubelet.pod("web") as sandbox:
        assert kubelet.pull(reference) == sha256(PUBLISHED.config)
        container = kubelet.start(sandbox, "web", "main", reference, "/bin/sleep", "1000")
        assert kubelet.execute(container, "/bin/sh", "-c", "echo x >/own; cat /own /etc/motd") == "x\npublished\n"
        kubelet.remove(container)
