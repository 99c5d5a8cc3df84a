"""Docker on containerd with the snapshotter and the mirror: images of Docker Hub start while it is out of reach."""

import json
from collections.abc import Iterator

import pytest

from snapshotter.settings import DEFAULT_ADDRESS
from tests.builders import Image, Layer, file, push
from tests.dockerd import Dockerd
from tests.end_to_end.published import repository
from tests.end_to_end.test_registry_mirror import mirror
from tests.images.small import system
from tests.leftovers import mounts
from tests.needs import need_fuse, need_root
from tests.newer_docker import running_docker_on_containerd
from tests.registry import running_registry
from tests.snapshotter import running_snapshotter
from tests.unit.docs.pages import DOCS, Page

ENGINE, MIRROR = Page(DOCS / "engines" / "docker.md"), Page(DOCS / "registry-mirror.md")
IMAGE = Image([Layer.of(*system()), Layer.of(file("etc/motd", b"of the hub\n"))], {"Env": ["PATH=/bin"]})


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """Set up by the two pages; the hub that the image was converted from is gone."""
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("h")
    (containerd,), (daemon,), (mirrors,) = ENGINE.snippets("toml"), ENGINE.snippets("json"), MIRROR.snippets("json")
    with repository(top / "repository") as made:
        with running_registry(top / "registry") as hub:
            push(hub.host, "library/hub-image", "latest", IMAGE)
            settings = top / "registries.yaml"
            settings.write_text(f"registries: {{docker.io: {{mirrors: [{{url: 'http://{hub.host}'}}]}}}}\n")
            made.convert("https://registry.hub.docker.com/library/hub-image:latest", options=["--registries", settings])
        with (
            made.served() as url,
            made.mounted(url) as mountpoint,
            running_snapshotter(top / "s", (made.fqrn, mountpoint)) as program,
        ):
            (default,) = json.loads(mirrors)["registry-mirrors"]
            address = mirror(made, mountpoint)
            told = json.loads(daemon) | json.loads(mirrors.replace(default, address))
            tables = containerd.replace(str(DEFAULT_ADDRESS), str(program.address))
            with running_docker_on_containerd(top / "docker", top, tables, told) as running:
                yield running
        assert mounts(top) == []


@pytest.mark.parametrize("name", ["hub-image", "docker.io/library/hub-image:latest"])
def test_a_published_image_of_docker_hub_starts_while_the_hub_is_out_of_reach(name: str, docker: Dockerd) -> None:
    docker.docker("pull", name)
    assert docker.run(name, "cat", "/etc/motd") == "of the hub\n"
    docker.docker("rmi", name)
