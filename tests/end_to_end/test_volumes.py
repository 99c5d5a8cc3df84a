"""Repositories as volumes of Docker's containers: Debian's dockerd, the plugin as it is run, our client below it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ducc.client.mountpoint import control_path
from tests.builders import Image, Layer, push
from tests.dockerd import PLUGINS, Dockerd, running_dockerd
from tests.end_to_end.published import Published, repository
from tests.images.small import SETTINGS, system
from tests.needs import need_fuse, need_root
from tests.registry import Registry
from tests.volume_plugin import VolumePlugin, running_volume_plugin

pytestmark = pytest.mark.engine
PATIENCE_SECONDS = 90


@dataclass(frozen=True)
class Site:
    """*oldest* is the revision that holds nothing and has no tag; the newest one has the same image by a second name.

    Containers are made of *image*, which is there since the revision between them.
    """

    docker: Dockerd
    plugin: VolumePlugin
    made: Published
    image: str
    oldest: int
    oldest_hash: str

    @property
    def fqrn(self) -> str:
        return self.made.fqrn

    def run(self, volume: str, *command: object, options: tuple[object, ...] = (), status: int | None = 0) -> str:
        """What *command* prints in a container that has *volume* at /data."""
        return self.docker.run(*self._words(volume, command, options), status=status)

    def start(self, volume: str, *command: object, options: tuple[object, ...] = ()) -> str:
        """A container that goes on in the background; its id."""
        words = self._words(volume, command or ("sleep", "600"), ("--network", "none", *options))
        return self.docker.docker("run", "--detach", *words).stdout.strip()

    def exec(self, container: str, *command: object, status: int | None = 0) -> str:
        return self.docker.docker("exec", container, *command, status=status).stdout

    def end(self, container: str) -> None:
        self.docker.docker("rm", "--force", container)

    def _words(self, volume: str, command: tuple[object, ...], options: tuple[object, ...]) -> list[object]:
        program, *words = command
        driver = ("--volume-driver", self.plugin.driver, "--volume", f"{volume}:/data")
        return [*driver, "--entrypoint", program, *options, self.image, *words]


@pytest.fixture(scope="module")
def site(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need_root()
    need_fuse()
    directory = tmp_path_factory.mktemp("volumes")
    image = f"{registry.host}/test/volumes:latest"
    for name in ("volumes", "second"):
        push(registry.host, f"test/{name}", "latest", Image([Layer.of(*system())], SETTINGS))
    with ExitStack() as opened:
        made = opened.enter_context(repository(directory / "publisher"))
        oldest, oldest_hash = made.revision, made.manifest.root_hash.hex()
        made.convert(f"http://{image}")
        made.convert(f"http://{registry.host}/test/second:latest")
        url = opened.enter_context(made.served())
        name = f"ducc-test-{os.getpid()}.sock"
        plugin = opened.enter_context(running_volume_plugin(PLUGINS / name, directory / "plugin"))
        plugin.configure(made, url)
        docker = opened.enter_context(running_dockerd(directory / "docker", registry=registry.host))
        docker.docker("pull", "--quiet", image)
        yield Site(docker, plugin, made, image, oldest, oldest_hash)


@pytest.fixture(autouse=True)
def nothing_stays_mounted(site: Site) -> Iterator[None]:
    yield
    wait_until(lambda: site.plugin.mounts() == [], "a mount is left that no container uses")


def wait_until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


# --- what a container sees -------------------------------------------------------------------


def test_a_container_sees_the_repository_and_can_run_what_is_in_it(site: Site) -> None:
    assert site.image.partition("/")[0] in site.run(site.fqrn, "ls", "/data").split()
    program = f"/data/{site.image}/bin/busybox"
    assert site.run(site.fqrn, program, "echo", "from the volume") == "from the volume\n"


def test_a_volume_is_read_only_even_for_root(site: Site) -> None:
    assert "Read-only file system" in site.run(site.fqrn, "sh", "-c", "echo > /data/file", status=1)


def test_an_ordinary_user_of_a_container_sees_it_too(site: Site) -> None:
    assert site.run(site.fqrn, "ls", "/data", options=("--user", "12345")) != ""


def test_a_volume_shows_the_revision_that_its_name_says(site: Site) -> None:
    newest, host = site.made.revision, site.image.partition("/")[0]
    registry = f"/data/{host}"
    for snapshot in (site.oldest, site.oldest_hash):
        assert host not in site.run(f"{site.fqrn}@{snapshot}", "ls", "/data").split()
    for snapshot in ("trunk-previous", newest - 1):
        assert site.run(f"{site.fqrn}@{snapshot}", "ls", f"{registry}/test").split() == ["volumes:latest"]
    for snapshot in ("trunk", newest, site.made.manifest.root_hash.hex()):
        names = site.run(f"{site.fqrn}@{snapshot}", "ls", f"{registry}/test").split()
        assert names == ["second:latest", "volumes:latest"]


def test_a_named_volume_can_be_made_listed_inspected_and_removed(site: Site) -> None:
    name, docker = f"{site.fqrn}@trunk", site.docker.docker
    assert docker("volume", "create", "--driver", site.plugin.driver, name).stdout.strip() == name
    assert name in docker("volume", "ls", "--quiet", "--filter", f"driver={site.plugin.driver}").stdout.split()
    assert docker("volume", "inspect", "--format", "{{.Status.tag}} {{.Status.uses}}", name).stdout == "trunk 0\n"
    docker("volume", "rm", name)
    assert name not in docker("volume", "ls", "--quiet").stdout.split()


# --- one mount for all -----------------------------------------------------------------------


def test_containers_share_one_mount_which_goes_with_the_last_of_them(site: Site) -> None:
    first, second = site.start(site.fqrn), site.start(site.fqrn)
    (mountpoint,) = site.plugin.mounts()
    other = site.start(f"{site.fqrn}@trunk")
    assert len(site.plugin.mounts()) == 2
    site.end(first)
    site.end(other)
    assert site.plugin.mounts() == [mountpoint]
    assert site.exec(second, "ls", "/data") != ""
    site.end(second)


def test_a_volume_in_use_is_not_removed(site: Site) -> None:
    container = site.start(site.fqrn)
    done = site.docker.docker("volume", "rm", site.fqrn, status=1)
    assert "in use" in done.stderr
    assert "is in use by 1 containers" in site.plugin.call("VolumeDriver.Remove", Name=site.fqrn)["Err"]
    assert site.exec(container, "ls", "/data") != ""
    site.end(container)


# --- refused, in one line --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["unconfigured.example.org"], "CVMFS_SERVER_URL"),
        (["{fqrn}@no-such-tag"], "has no revision no-such-tag"),
        (["{fqrn}@99"], "has no revision 99"),
        (["{fqrn}@" + "0" * 40], "0000000"),
    ],
)
def test_what_cannot_be_mounted_starts_no_container_and_says_why(site: Site, words: list[str], reason: str) -> None:
    volume = words[0].format(fqrn=site.fqrn)
    said = site.run(volume, "true", status=125)
    assert reason in said
    assert "Traceback" not in said
    site.docker.docker("volume", "rm", volume)


@pytest.mark.parametrize("name", ["localhost", "images.ducc.test@", "images.ducc.test@a@b"])
def test_names_that_say_no_repository_are_refused(site: Site, name: str) -> None:
    said = site.docker.docker("volume", "create", "--driver", site.plugin.driver, name, status=1).stderr
    assert "wanted: FQRN, or FQRN@ with a tag, revision or root hash" in said


def test_options_are_refused(site: Site) -> None:
    words = ["volume", "create", "--driver", site.plugin.driver, "--opt", "size=1G", f"{site.fqrn}@sized"]
    assert "option size: there are none" in site.docker.docker(*words, status=1).stderr


# --- what survives what ----------------------------------------------------------------------


def test_the_plugin_can_be_killed_and_started_again_under_running_containers(site: Site) -> None:
    before = site.start(site.fqrn)
    (mountpoint,) = site.plugin.mounts()
    site.plugin.kill()
    assert site.exec(before, "ls", "/data") != ""
    site.plugin.start()
    after = site.start(site.fqrn)
    assert site.plugin.mounts() == [mountpoint]
    site.end(before)
    assert site.exec(after, "ls", "/data") != ""
    site.end(after)


def test_the_daemon_can_be_killed_and_started_again_under_running_containers(site: Site) -> None:
    site.start(site.fqrn, options=("--name", "survivor"))
    site.docker.kill()
    assert len(site.plugin.mounts()) == 1
    site.docker.start()
    site.docker.docker("start", "survivor")
    assert site.exec("survivor", "ls", "/data") != ""
    site.end("survivor")


def test_a_mount_whose_processes_were_killed_is_replaced_for_the_next_container(site: Site) -> None:
    before = site.start(site.fqrn)
    (mountpoint,) = site.plugin.mounts()
    kill_the_client(mountpoint)
    after = site.start(site.fqrn)
    assert site.exec(after, "ls", "/data") != ""
    (replaced,) = site.plugin.mounts()
    assert replaced != mountpoint
    site.end(before)
    assert site.plugin.mounts() == [replaced]
    site.end(after)


def kill_the_client(mountpoint: Path) -> None:
    """SIGKILL for the process behind a mount, and for the one that would start another."""
    worker = int(control_path(mountpoint).with_suffix(".lock").read_text())
    status = Path(f"/proc/{worker}/status").read_text()
    watcher = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    for process in (watcher, worker):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not answers(mountpoint), "the mount answers without a process")


def answers(mountpoint: Path) -> bool:
    try:
        os.statvfs(mountpoint)
    except OSError:
        return False
    return True
