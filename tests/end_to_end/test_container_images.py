"""The images of `Dockerfile`: built, started, healthy, and at work, each program in a container of its own.

They are built on a Debian of our own, with no network but that of apt and pip, by Debian's Docker, and a whole site
of them is started by `compose.yaml`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders import Image, Layer, push
from tests.dockerd import Dockerd, running_dockerd
from tests.images import build, debian
from tests.images.small import system
from tests.needs import need_fuse, need_program, need_root
from tests.registry import free_port
from tests.snapshotter import Client

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]  # all images are built in front of the first test
ROOT = Path(__file__).parents[2]
TARGETS = ("service", "server", "client", "snapshotter", "graphdriver")
FQRN = "demo.example.org"
PROJECT = "ducctest"
PATIENCE_SECONDS = 180
FUSE = ("--device", "/dev/fuse", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
OFTEN = ("--health-interval", "1s")
GRAPH_DRIVER_SETTINGS = '[[repositories]]\nname = "demo.example.org"\nmountpoint = "/cvmfs"\n'
REGISTRY_DOCKERFILE = """\
ARG BASE
FROM ${BASE}
RUN --mount=type=secret,id=sources.list,target=/etc/apt/sources.list \\
    --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf --mount=type=secret,id=ca \\
    apt-get -q update && apt-get -q install -y --no-install-recommends docker-registry
COPY config.yml /config.yml
CMD ["docker-registry", "serve", "/config.yml"]
"""
REGISTRY_CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
"""


@dataclass(frozen=True)
class Workshop:
    """A daemon that has all images. *secrets* tell apt and pip what the machine's own know."""

    docker: Dockerd
    directory: Path
    secrets: Sequence[str]

    def build(self, context: Path, name: str, *options: str) -> None:
        words = ["--network", "host", "--build-arg", "BASE=base", *self.secrets, *options, "--tag", name, context]
        self.docker.docker("build", *words, timeout=1500, DOCKER_BUILDKIT="1")

    def start(self, *words: object) -> str:
        """A container in the background; its id."""
        return self.docker.docker("run", "--detach", *words).stdout.strip()

    def health(self, container: str) -> str:
        return self.docker.docker("inspect", "--format", "{{.State.Health.Status}}", container).stdout.strip()

    def wait_until_healthy(self, container: str) -> None:
        def shown() -> str:
            state = self.docker.docker("inspect", "--format", "{{json .State}}", container).stdout
            logs = self.docker.docker("logs", container)
            return f"{state}\n{logs.stdout}\n{logs.stderr}"

        wait_until(lambda: self.health(container) == "healthy", shown)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    need_root()
    directory = tmp_path_factory.mktemp("workshop")
    with running_dockerd(directory / "docker") as docker:
        made = Workshop(docker, directory, secrets_of_the_machine(directory))
        docker.docker("import", minimal_base(), "base")
        context = sources(directory / "sources")
        for target in TARGETS:
            made.build(context, f"ducc-{target}", "--target", target)
        yield made


def sources(directory: Path) -> Path:
    """What images are made of, as it is now: whoever works on it meanwhile changes no image."""
    directory.mkdir()
    wanted = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    for path in (ROOT / name for name in ("Dockerfile", ".dockerignore", *wanted)):
        if path.is_dir():
            shutil.copytree(path, directory / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, directory)
    return directory


def minimal_base() -> Path:
    """An archive of Debian's minimal base: the lowest layer of the images that tests convert."""
    built = build("base")
    blobs = built.layout / "blobs" / "sha256"
    index = json.loads((built.layout / "index.json").read_text())
    (manifest,) = (one for one in index["manifests"] if built.tag in one["annotations"].values())
    layers = json.loads((blobs / manifest["digest"].removeprefix("sha256:")).read_text())["layers"]
    return blobs / layers[0]["digest"].removeprefix("sha256:")


def secrets_of_the_machine(directory: Path) -> list[str]:
    """What `Dockerfile` says of secrets, made of this machine's settings, and its proxies."""
    settings = debian._settings().replace("/etc/apt/certificates", "/run/secrets/ca")
    files = {"sources.list": debian._sources_list(debian.SUITE), "apt.conf": settings, "pip.conf": pip_settings()}
    for name, text in files.items():
        (directory / name).write_text(text)
    places = {name: directory / name for name in files}
    if debian.CERTIFICATES.exists():
        places["ca"] = debian.CERTIFICATES
    secrets = [word for name, place in places.items() for word in ("--secret", f"id={name},src={place}")]
    proxies = [f"{name}={os.environ[name]}" for name in PROXIES if name in os.environ]
    return [*secrets, *(word for proxy in proxies for word in ("--build-arg", proxy))]


def pip_settings() -> str:
    """Where this machine's pip looks for packages."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    kept = ["[global]", *(["cert = /run/secrets/ca"] if debian.CERTIFICATES.exists() else [])]
    for line in told.stdout.splitlines():
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2]
        if name in ("index-url", "extra-index-url", "trusted-host", "proxy") and "file:" not in value:
            kept.append(f"{name} = {value.strip(chr(39))}")
    return "\n".join([*kept, ""])


def wait_until(holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.5)


# --- the images ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_of_the_machine_it_was_built_on_is_in_an_image(workshop: Workshop, target: str) -> None:
    left = "cat /etc/apt/sources.list /etc/apt/apt.conf /etc/pip.conf /run/secrets/* 2>/dev/null; ls /var/lib/apt/lists"
    assert workshop.docker.run("--entrypoint", "sh", f"ducc-{target}", "-c", left, status=None).split() in (
        [],
        ["partial"],
    )
    history = workshop.docker.docker("history", "--no-trunc", f"ducc-{target}").stdout
    assert not any(str(workshop.directory) in line for line in history.splitlines())


@pytest.mark.parametrize("target", ["service", "server"])
def test_what_needs_no_root_has_none(workshop: Workshop, target: str) -> None:
    assert workshop.docker.run("--entrypoint", "id", f"ducc-{target}", "--user").strip() == "10001"


@pytest.mark.parametrize(
    ("target", "program"),
    [("service", "ducc"), ("client", "ducc"), ("snapshotter", "ducc-snapshotter"), ("graphdriver", "ducc-graphdriver")],
)
def test_an_image_starts_its_program(workshop: Workshop, target: str, program: str) -> None:
    assert workshop.docker.run(f"ducc-{target}", "--help").startswith(f"usage: {program}")


def test_images_share_what_they_have_in_common(workshop: Workshop) -> None:
    def layers(target: str) -> list[str]:
        words = ["inspect", "--format", "{{json .RootFS.Layers}}", f"ducc-{target}"]
        return json.loads(workshop.docker.docker(*words).stdout)

    common = [one for one, other in zip(layers("service"), layers("client"), strict=False) if one == other]
    assert layers("snapshotter") == layers("graphdriver") == common


def test_a_managed_plugin_of_docker_is_made_of_the_image_and_can_be_started(workshop: Workshop) -> None:
    docker, plugin = workshop.docker.docker, workshop.directory / "plugin"
    rootfs, settings = plugin / "rootfs", workshop.directory / "settings"
    for directory in (rootfs, settings):
        directory.mkdir(parents=True)
    (settings / "graphdriver.toml").write_text(GRAPH_DRIVER_SETTINGS)
    shutil.copy(ROOT / "packaging" / "plugin" / "config.json", plugin)
    container = docker("create", "ducc-graphdriver").stdout.strip()
    docker("export", "--output", plugin / "image.tar", container)
    subprocess.run(["tar", "--extract", "--file", plugin / "image.tar", "--directory", rootfs], check=True)
    (plugin / "image.tar").unlink()
    docker("plugin", "create", "ducc/graphdriver", plugin)
    docker("plugin", "set", "ducc/graphdriver", f"repositories.source={settings}", f"settings.source={settings}")
    docker("plugin", "enable", "ducc/graphdriver")
    assert docker("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}").stdout == "ducc/graphdriver:latest true\n"
    docker("plugin", "disable", "ducc/graphdriver")
    for words in (("plugin", "rm", "ducc/graphdriver"), ("rm", container)):
        docker(*words)


# --- at work ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """What `compose.yaml` has started. *registry* is a name for images, as the daemon knows the registry."""

    workshop: Workshop
    environment: dict[str, str]
    registry: str

    def compose(self, *words: str) -> str:
        command = ["docker-compose", "--project-name", PROJECT, "--file", str(ROOT / "compose.yaml"), *words]
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def container(self, service: str) -> str:
        return self.compose("ps", "--quiet", service).strip()


@pytest.fixture(scope="module")
def site(workshop: Workshop) -> Iterator[Site]:
    need_program("docker-compose")
    context = workshop.directory / "registry"
    context.mkdir()
    (context / "Dockerfile").write_text(REGISTRY_DOCKERFILE)
    (context / "config.yml").write_text(REGISTRY_CONFIG)
    workshop.build(context, "registry")
    port = free_port()
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(workshop.directory),
        "DOCKER_HOST": workshop.docker.address,
        "REGISTRY_IMAGE": "registry",
        "REGISTRY_PORT": str(port),
        "SERVER_PORT": str(free_port()),
    }
    started = Site(workshop, environment, f"127.0.0.1:{port}")
    with ExitStack() as opened:
        opened.callback(started.compose, "down", "--volumes", "--timeout", "60")
        started.compose("up", "--detach")
        yield started


def test_a_site_started_by_compose_publishes_what_is_pushed_and_serves_it(site: Site) -> None:
    push(site.registry, "demo/hello", "1", Image([Layer.of(*system())]))

    def status() -> str:
        return site.compose("exec", "-T", "service", "ducc", "status", FQRN)

    wait_until(lambda: "granted" in status(), lambda: site.compose("logs", "service"))
    for service in ("service", "server"):
        site.workshop.wait_until_healthy(site.container(service))


def test_the_client_mounts_what_the_site_serves_and_runs_a_program_of_it(site: Site) -> None:
    need_fuse()
    docker = site.workshop.docker.docker
    test_a_site_started_by_compose_publishes_what_is_pushed_and_serves_it(site)
    where = ["--url", f"http://server:8000/cvmfs/{FQRN}", "--public-key", f"/keys/{FQRN}.pub"]
    words = ["--network", f"{PROJECT}_default", "--volume", f"{PROJECT}_keys:/keys:ro", *FUSE, *OFTEN]
    client = site.workshop.start(*words, "ducc-client", "mount", "--foreground", *where, FQRN, "/mnt")
    site.workshop.wait_until_healthy(client)
    done = docker("exec", client, "chroot", "/mnt/registry:5000/demo/hello:1", "/bin/busybox", "echo", "from the image")
    assert done.stdout == "from the image\n"
    docker("stop", "--time", "60", client)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", client).stdout == "0\n"
    docker("rm", client)


def test_the_snapshotter_answers_containerd_from_its_container(workshop: Workshop) -> None:
    run, settings = workshop.directory / "run", workshop.directory / "snapshotter.toml"
    settings.write_text('[[repositories]]\nname = "demo.example.org"\nmountpoint = "/cvmfs"\n')
    places = [f"{run}:/run/ducc-snapshotter", f"{settings}:/etc/ducc/snapshotter.toml:ro"]
    volumes = [word for place in places for word in ("--volume", place)]
    container = workshop.start("--network", "none", *volumes, *OFTEN, "ducc-snapshotter")
    workshop.wait_until_healthy(container)
    client = Client(run / "snapshotter.sock")
    try:
        assert client.prepare("new")[0].type == "bind"
        client.commit("layer", "new")
        assert client.names() == ["layer"]
    finally:
        client.close()
    workshop.docker.docker("rm", "--force", container)


def test_the_graph_driver_answers_docker_from_its_container(workshop: Workshop) -> None:
    settings = workshop.directory / "graphdriver.toml"
    settings.write_text(GRAPH_DRIVER_SETTINGS)
    volume = f"{settings}:/etc/ducc/graphdriver.toml:ro"
    words = ["--network", "none", "--cap-add", "SYS_ADMIN", "--volume", volume, *OFTEN]
    container = workshop.start(*words, "ducc-graphdriver")
    workshop.wait_until_healthy(container)
    workshop.docker.docker("rm", "--force", container)
