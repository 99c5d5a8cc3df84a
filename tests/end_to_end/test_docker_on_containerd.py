"""Docker with the containerd image store, set up by its page: published images start, and no layer is fetched."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapshotter.settings import DEFAULT_ADDRESS
from tests.builders import Image, Layer, directory, file, push, sha256, whiteout
from tests.dockerd import Dockerd
from tests.end_to_end.published import repository
from tests.images.small import system
from tests.leftovers import mounts
from tests.needs import need_fuse, need_root
from tests.newer_docker import running_docker_on_containerd
from tests.registry import Registry
from tests.snapshotter import running_snapshotter
from tests.unit.docs.pages import DOCS, Page

PAGE = Page(DOCS / "engines" / "docker.md")
SETTINGS = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}
UPPER = Layer.of(directory("etc"), file("etc/motd", b"published\n"), whiteout("etc/group"))
PUBLISHED = Image([Layer.of(*system()), UPPER], SETTINGS)


@pytest.fixture(scope="module")
def docker(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("d")
    push(registry.host, "docker/published", "latest", PUBLISHED)
    (containerd,), (daemon,) = PAGE.snippets("toml"), PAGE.snippets("json")
    with repository(top / "repository") as made:
        made.convert(f"http://{registry.host}/docker/published:latest")
        with (
            made.served() as url,
            made.mounted(url) as mountpoint,
            running_snapshotter(top / "s", (made.fqrn, mountpoint)) as program,
        ):
            settings = containerd.replace(str(DEFAULT_ADDRESS), str(program.address))
            with running_docker_on_containerd(top / "docker", top, settings, json.loads(daemon)) as running:
                yield running
        assert mounts(top) == []


def test_a_published_image_is_pulled_run_written_to_committed_and_removed(docker: Dockerd, registry: Registry) -> None:
    assert "ducc" in docker.docker("info", "--format", "{{.Driver}}").stdout
    reference, before = f"{registry.host}/docker/published:latest", len(registry.blob_fetches())
    docker.docker("pull", reference)
    command = "cat /etc/motd; echo mine >/own && cat /own; ls /etc/group 2>/dev/null || echo deleted"
    assert docker.run(reference, "/bin/sh", "-c", command) == "published\nmine\ndeleted\n"
    docker.docker("run", "--name", "author", "--network", "none", reference, "/bin/sh", "-c", "echo new >/home/news")
    docker.docker("commit", "author", "edition")
    docker.docker("rm", "author")
    assert docker.run("edition", "/bin/cat", "/etc/motd", "/home/news") == "published\nnew\n"
    docker.docker("rmi", "edition", reference)
    assert docker.docker("images", "-q").stdout == ""
    asked = {request.path.rpartition("/")[2] for request in registry.blob_fetches()[before:]}
    assert sha256(PUBLISHED.config) in asked
    assert asked.isdisjoint(sha256(layer.blob) for layer in PUBLISHED.layers)
    assert _overlays_of(docker) == []


def _overlays_of(docker: Dockerd) -> list[str]:
    """What is mounted where the daemons see it."""
    assert docker.process is not None
    table = Path(f"/proc/{docker.process.pid}/mounts").read_text(errors="surrogateescape").splitlines()
    return [line for line in table if line.startswith("overlay ") and str(docker.directory) in line]
