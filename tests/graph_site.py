"""A machine with a repository's mount, the graph driver and a daemon that uses it, for the length of a `with` block."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.dockerd import PLUGINS, Dockerd, running_dockerd
from tests.end_to_end.published import Published, repository
from tests.graph_driver import GraphDriver, running_graph_driver
from tests.leftovers import mounts
from tests.needs import need_fuse, need_root
from tests.registry import Registry
from tests.trees import Tree, scan, without, without_xattrs

OF_THE_DAEMON = (b"proc", b"sys", b"dev", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"etc/mtab", b".dockerenv")


@dataclass
class Site:
    """Images are named as in the registry, without the tag, which is `latest`."""

    registry: Registry
    made: Published
    repository: Path  # where the client has it mounted, whatever becomes of `mountpoint`
    mountpoint: Path
    driver: GraphDriver
    docker: Dockerd

    def reference(self, name: str) -> str:
        return f"{self.registry.host}/{name}:latest"

    def mount(self) -> None:
        """Show the repository where the driver looks for it."""
        subprocess.run(["mount", "--bind", self.repository, self.mountpoint], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.mountpoint], check=False)

    def pull(self, name: str) -> str:
        self.docker.docker("pull", "--quiet", self.reference(name))
        return self.reference(name)

    def start(self, image: str, *command: str) -> str:
        """A container that runs in the background; its id."""
        words = ("run", "--detach", "--network", "none", image, *(command or ("/bin/sleep", "1000")))
        return self.docker.docker(*words).stdout.strip()

    def exec(self, container: str, script: str) -> str:
        return self.docker.docker("exec", container, "/bin/sh", "-c", script).stdout

    def mounted(self) -> list[str]:
        """Overlays of this daemon's layers that are mounted here."""
        return [line for line in mounts(self.docker.directory) if " overlay " in line and "/layers/" in line]

    @contextmanager
    def fetching(self) -> Iterator[list[str]]:
        """The blobs that the registry is asked for within the block, by digest."""
        before, fetched = len(self.registry.blob_fetches()), []
        yield fetched
        fetched += [request.path.split("/")[-1] for request in self.registry.blob_fetches()[before:]]


@contextmanager
def running_site(top: Path, registry: Registry, *images: str) -> Iterator[Site]:
    """With *images* of the registry published."""
    need_root()
    need_fuse()
    mountpoint = top / "cvmfs"
    mountpoint.mkdir()
    with ExitStack() as opened:
        made = opened.enter_context(repository(top / "repository"))
        url = opened.enter_context(made.served())
        address = PLUGINS / f"ducc-graph-{os.getpid()}.sock"
        address.parent.mkdir(parents=True, exist_ok=True)
        driver = opened.enter_context(running_graph_driver(top / "g", (made.fqrn, mountpoint), address=address))
        options = ("--experimental", "--live-restore", "--storage-driver", driver.name)
        docker = opened.enter_context(running_dockerd(top / "d", *options, registry=registry.host))
        publish_thin(made, registry, images)
        mounted = opened.enter_context(made.mounted(url))
        site = Site(registry, made, mounted, mountpoint, driver, docker)
        site.mount()
        opened.callback(site.unmount)
        opened.callback(docker.stop)
        yield site
    assert mounts(top) == []


def publish_thin(made: Published, registry: Registry, images: Sequence[str]) -> None:
    """Publish *images* of the registry, and their thin images as `thin/<name>`."""
    wishlist = made.wishlist(*(f"http://{registry.host}/{name}:latest" for name in images))
    wishlist.write_text(f"{wishlist.read_text()}output_format: 'http://{registry.host}/thin/$(image)'\n")
    made.ducc("convert", wishlist, *made.publisher, "--json")


def container_tree(docker: Dockerd, image: str) -> Tree:
    """What a new container of *image* sees, to be compared with others."""
    words = ("run", "--detach", "--network", "none", "--user", "0", "--entrypoint", "/bin/sleep", image, "1000")
    container = docker.docker(*words).stdout.strip()
    try:
        merged = docker.docker("inspect", "--format", "{{.GraphDriver.Data.MergedDir}}", container).stdout.strip()
        tree = scan(merged)
    finally:
        docker.docker("rm", "--force", container)
    return comparable(tree)


def comparable(tree: Tree) -> Tree:
    """*tree* without what the daemon puts into every container, and what that does to times."""
    kept = without_xattrs(without(tree, b"", *OF_THE_DAEMON), "user.overlay.")
    return {path: replace(row, mtime_ns=0) if path == b"etc" else row for path, row in kept.items()}
