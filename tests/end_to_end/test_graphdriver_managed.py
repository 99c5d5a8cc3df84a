"""The graph driver as a plugin that Docker itself runs: created from the config that we ship, used, killed, used on.

The plugin's root is this machine's /usr with the programs under test, all of it only to be read.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import Image, Layer, directory, file, push
from tests.dockerd import PLUGINS, Dockerd
from tests.graph_driver import PROGRAM
from tests.graph_site import Site, running_site
from tests.images.small import system
from tests.leftovers import mounts
from tests.registry import Registry

pytestmark = pytest.mark.engine

CONFIG = Path(__file__).parents[2] / "packaging" / "plugin" / "config.json"
PROJECT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
PUBLISHED = Image(
    [Layer.of(*system()), Layer.of(directory("etc"), file("etc/motd", b"changed\n"))], {"Env": ["PATH=/bin"]}
)


@pytest.fixture(scope="module")
def site(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    push(registry.host, "managed/published", "latest", PUBLISHED)
    with running_site(tmp_path_factory.mktemp("s"), registry, "managed/published") as site:
        yield site


@pytest.fixture(scope="module")
def docker(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """A daemon whose storage driver is a plugin of its own."""
    top = tmp_path_factory.mktemp("m")
    daemon = Dockerd(top / "d", ("--experimental", "--storage-driver", "overlay2"), site.registry.host)
    try:
        daemon.start()
        daemon.docker("plugin", "create", "ducc-managed", plugin(site, top))
        daemon.docker("plugin", "enable", "ducc-managed")
        assert daemon.process is not None
        daemon.process.terminate()
        daemon.process.wait(PATIENCE_SECONDS)
        daemon.options = ("--experimental", "--live-restore", "--storage-driver", "ducc-managed")
        daemon.start()
        yield daemon
    finally:
        sockets = daemon.docker("plugin", "inspect", "--format", "{{.Id}}", "ducc-managed", status=None).stdout.strip()
        daemon.stop()
        if sockets:
            shutil.rmtree(PLUGINS / sockets, ignore_errors=True)


def plugin(site: Site, top: Path) -> Path:
    """What `docker plugin create` takes: a root, and our config with the places of this machine."""
    root, settings = top / "plugin" / "rootfs", top / "etc"
    for name in ("proc", "sys", "dev", "tmp", "run", "var", "etc"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    settings.mkdir()
    text = f'[[repositories]]\nname = "{site.made.fqrn}"\nmountpoint = "/cvmfs/{site.mountpoint.name}"\n'
    (settings / "graphdriver.toml").write_text(text)
    config = json.loads(CONFIG.read_text())
    config["entrypoint"][0] = str(PROGRAM)
    sources = {"repositories": site.mountpoint.parent, "settings": settings}
    for mount in config["mounts"]:
        mount["source"] = str(sources[mount["name"]])
    machine = {"/usr", sys.base_prefix, sys.prefix, str(PROJECT)}
    for number, place in enumerate(sorted(place for place in machine if not _is_below(place, machine))):
        bind = {"type": "bind", "source": place, "destination": place, "options": ["rbind", "ro"]}
        config["mounts"].append({"name": f"machine-{number}", **bind})
    (root.parent / "config.json").write_text(json.dumps(config))
    return root.parent


def _is_below(place: str, others: set[str]) -> bool:
    return any(place.startswith(f"{other}/") for other in others)


def test_a_managed_plugin_runs_published_images_and_survives_being_killed(site: Site, docker: Dockerd) -> None:
    image = site.reference("thin/managed/published")
    docker.docker("pull", "--quiet", image)
    assert docker.run(image, "/bin/cat", "/etc/motd") == "changed\n"
    container = docker.docker("run", "--detach", "--network", "none", image, "/bin/sleep", "1000").stdout.strip()
    docker.docker("exec", container, "/bin/sh", "-c", "echo kept >/kept")
    killed = process(docker)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process(docker) in (None, killed):
        assert time.monotonic() < deadline, "Docker did not start the plugin again"
        time.sleep(0.1)
    assert docker.docker("exec", container, "/bin/cat", "/kept").stdout == "kept\n"
    docker.docker("restart", "--time", "0", container)
    assert docker.docker("exec", container, "/bin/cat", "/kept", "/etc/motd").stdout == "kept\nchanged\n"
    docker.docker("rm", "--force", container)
    assert [line for line in mounts(docker.directory) if " overlay " in line] == []


def process(docker: Dockerd) -> int | None:
    """The plugin's process: it is told its settings, and sees what the daemon mounts."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"/etc/ducc/graphdriver.toml" in words and str(docker.directory) in (entry / "mountinfo").read_text():
                return int(entry.name)
        except OSError:
            continue
    return None
