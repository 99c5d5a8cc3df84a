"""The table of docs/engines.md: how soon a program of a published image says its first word, by engine.

Each engine starts two programs of the scientific image, with nothing of it on the machine: as it is published, through
a new mount with an empty cache, and as engines do without us, by pulling it from the same registry on loopback. What
either fetches is counted by the servers. A row that can't be measured says why.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.client import _served
from bench.measure import CommandFailed
from bench.stage import Place, Stage
from bench.table import Row
from tests import sid
from tests.builders import Image, Layer, push
from tests.containerd import running_containerd
from tests.dockerd import PLUGINS, Dockerd, running_dockerd
from tests.end_to_end.published import repository
from tests.graph_driver import running_graph_driver
from tests.images import build
from tests.images.small import system
from tests.podman import LIMITS, Podman
from tests.snapshotter import running_snapshotter
from tests.volume_plugin import running_volume_plugin

PROGRAMS = {
    "a word": ("python3", "-B", "-c", "print('ready')"),
    "numpy, scipy, pandas": ("python3", "-B", "-c", "import numpy, scipy.stats, pandas; print('ready')"),
}
NAME = "bench/scientific"
_NOT_MEASURED = (
    CommandFailed, RuntimeError, AssertionError, OSError, subprocess.SubprocessError, pytest.skip.Exception,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """From the command to the program's end, and what was fetched for it, in MB."""

    seconds: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.megabytes:.1f} MB"


Measured = Callable[["Engines", Path], Start]


class Engines:
    """The image in a registry and, published, behind a counting server."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        image = build("scientific")
        self.reference = stage.push(image.layout, image.tag, NAME)
        self.registry = stage.registry
        self._found: dict[Measured, Start | str] = {}

    def rows(self) -> list[Row]:
        with repository(self._stage.scratch / "engines") as made:
            self.made = made
            wishlist = made.wishlist(f"http://{self.reference}")
            wishlist.write_text(f"{wishlist.read_text()}output_format: 'http://{self.registry.host}/thin/$(image)'\n")
            made.ducc("convert", wishlist, *made.publisher, timeout=1800)
            with _served(Place(made.directory)) as server:
                self._server = server
                self.url = server.url.replace("bench.ducc.test", made.fqrn)
                return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        for name, self.program in PROGRAMS.items():
            self._found.clear()
            for engine, how, ours, normal in _engines():
                yield self._row(f"{engine}, {how}: {name}", ours, normal)

    def _row(self, what: str, ours: Measured, normal: Measured) -> Row:
        first, second = self._once(ours), self._once(normal)
        both = isinstance(first, Start) and isinstance(second, Start)
        ratio = f"{second.seconds / first.seconds:.1f}×" if both else ""  # type: ignore[union-attr]
        return Row("engines", what, str(first), str(second), ratio, "", "")

    def _once(self, measure: Measured) -> Start | str:
        """What *measure* finds, which several rows may be compared with, or why it finds nothing."""
        if measure not in self._found:
            with tempfile.TemporaryDirectory(prefix="ducc-engine-", dir="/var/tmp", ignore_cleanup_errors=True) as made:
                try:
                    self._found[measure] = measure(self, Path(made))
                except _NOT_MEASURED as reason:
                    lines = str(reason).strip().splitlines() or [type(reason).__name__]
                    self._found[measure] = f"not measured: {lines[-1][:120]}"
        return self._found[measure]

    def measured(self, *steps: Callable[[], str]) -> Start:
        """What *steps* take together; the last one returns what the program said."""
        before, started = self._fetched(), time.monotonic()
        said = [step() for step in steps][-1]
        seconds = time.monotonic() - started
        assert said.endswith("ready\n"), f"the program said {said!r}"
        return Start(seconds, self._fetched() - before)

    def _fetched(self) -> float:
        """MB so far, of both servers."""
        return (self._server.counts()[1] + sum(request.size for request in self.registry.blob_fetches())) / 1e6

    @contextmanager
    def mounted(self, directory: Path) -> Iterator[Path]:
        """A new mount with an empty cache."""
        root = directory / "mnt"
        root.mkdir()
        client = ["--url", self.url, "--public-key", self.made.public_key, "--cache", directory / "cache"]
        self.made.ducc("mount", self.made.fqrn, root, *client)
        try:
            yield root
        finally:
            self.made.ducc("umount", root, status=None)

    def tiny(self) -> str:
        """A reference of an image that only has what it takes to go somewhere else."""
        push(self.registry.host, "bench/tiny", "1", Image([Layer.of(*system())]))
        return f"{self.registry.host}/bench/tiny:1"


def run(command: Sequence[object], **environment: str) -> str:
    """What a command prints. Raises `CommandFailed` with the last that it says of its failure."""
    done = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    if done.returncode != 0:
        raise CommandFailed(done.stderr.strip() or done.stdout.strip() or f"{command[0]} ended with {done.returncode}")
    return done.stdout


# --- Docker ----------------------------------------------------------------------------------


def docker_pulls(engines: Engines, directory: Path) -> Start:
    with running_dockerd(directory / "docker", registry=engines.registry.host) as docker:
        return engines.measured(lambda: _docker_run(docker, engines.reference, engines.program))


def docker_by_graph_driver(engines: Engines, directory: Path) -> Start:
    thin = f"{engines.registry.host}/thin/{NAME}:{engines.reference.rpartition(':')[2]}"
    address = _plugin("graph")
    with ExitStack() as opened:
        root = opened.enter_context(engines.mounted(directory))
        driver = opened.enter_context(
            running_graph_driver(directory / "driver", (engines.made.fqrn, root), address=address)
        )
        options = ("--experimental", "--storage-driver", driver.name)
        docker = opened.enter_context(running_dockerd(directory / "d", *options, registry=engines.registry.host))
        return engines.measured(lambda: _docker_run(docker, thin, engines.program))


def docker_by_volume(engines: Engines, directory: Path) -> Start:
    tiny = engines.tiny()
    with ExitStack() as opened:
        plugin = opened.enter_context(running_volume_plugin(_plugin("volume"), directory / "plugin"))
        plugin.configure(engines.made, engines.url)
        docker = opened.enter_context(running_dockerd(directory / "docker", registry=engines.registry.host))
        docker.docker("pull", tiny)
        volume = ("--volume-driver", plugin.driver, "--volume", f"{engines.made.fqrn}:/r")
        image = f"/r/{engines.reference}"
        words = (*volume, "--entrypoint", "/bin/busybox", tiny, "chroot", image, *engines.program)
        return engines.measured(lambda: docker.run(*words))


def _docker_run(docker: Dockerd, image: str, program: Sequence[str]) -> str:
    return docker.docker("run", "--rm", "--network", "none", image, *program, timeout=900).stdout


def _plugin(name: str) -> Path:
    PLUGINS.mkdir(parents=True, exist_ok=True)
    return PLUGINS / f"ducc-bench-{name}-{os.getpid()}.sock"


# --- containerd ------------------------------------------------------------------------------


def containerd_by_snapshotter(engines: Engines, directory: Path) -> Start:
    with ExitStack() as opened:
        root = opened.enter_context(engines.mounted(directory))
        program = opened.enter_context(running_snapshotter(directory / "snapshotter", (engines.made.fqrn, root)))
        containerd = opened.enter_context(running_containerd(directory / "c", program.address, engines.tiny()))
        return engines.measured(
            lambda: containerd.kubelet.pull(engines.reference),
            lambda: containerd.run(engines.reference, "bench", *engines.program),
        )


def containerd_pulls(engines: Engines, directory: Path) -> Start:
    overlayfs = ("--snapshotter", "overlayfs")
    with ExitStack() as opened:
        root = opened.enter_context(engines.mounted(directory))
        program = opened.enter_context(running_snapshotter(directory / "snapshotter", (engines.made.fqrn, root)))
        containerd = opened.enter_context(running_containerd(directory / "c", program.address, engines.tiny()))
        pull = ["ctr", "--address", containerd.address, "--namespace", "k8s.io", "images", "pull", "--plain-http"]
        return engines.measured(
            lambda: run([*pull, *overlayfs, engines.reference]),
            lambda: containerd.run(engines.reference, "bench", *engines.program, snapshotter="overlayfs"),
        )


# --- podman ----------------------------------------------------------------------------------


def podman_by_store(engines: Engines, directory: Path) -> Start:
    with engines.mounted(directory) as root:
        podman = Podman(directory, root)
        return engines.measured(lambda: podman.run(engines.reference, *engines.program))


def podman_pulls(engines: Engines, directory: Path) -> Start:
    places = ("--root", directory / "root", "--runroot", directory / "run", "--cgroup-manager", "cgroupfs")
    options = ("--rm", "--network=none", "--tls-verify=false", *LIMITS)
    enter = ("unshare", "--mount", "--propagation", "private")  # what podman leaves mounted goes with the command
    return engines.measured(
        lambda: run([*enter, "podman", *places, "run", *options, engines.reference, *engines.program])
    )


# --- apptainer -------------------------------------------------------------------------------


def apptainer_by_path(engines: Engines, directory: Path) -> Start:
    sid.sid_root()
    with engines.mounted(directory) as root:
        return engines.measured(
            lambda: _apptainer(["exec", "/mnt", *engines.program], root / engines.reference, directory)
        )


def apptainer_builds(engines: Engines, directory: Path) -> Start:
    sid.sid_root()
    build_words = ["build", "--sandbox", "/srv/built", f"docker://{engines.reference}"]
    return engines.measured(
        lambda: _apptainer(build_words, directory, directory),
        lambda: _apptainer(["exec", "/srv/built", *engines.program], directory, directory),
    )


def _apptainer(words: Sequence[str], image: Path, scratch: Path) -> str:
    command = ["env", "APPTAINER_NOHTTPS=1", "APPTAINER_TMPDIR=/srv", "APPTAINER_CACHEDIR=/srv/cache"]
    privileges = ["--userns"] if words[0] == "exec" else []
    full = [*command, "apptainer", "--silent", words[0], *privileges, *words[1:]]
    done = sid.enter(full, image, "root", scratch)
    if done.returncode != 0:
        raise CommandFailed(done.stderr)
    return done.stdout


# --- the table -------------------------------------------------------------------------------


def _version(*command: str) -> str:
    """The version that a program says it has, or that it is not there."""
    if shutil.which(command[0]) is None:
        return "(not installed)"
    words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.replace(",", " ").split()
    return next((word.removeprefix("v") for word in words if word.strip("v")[:1].isdigit()), "?")


def _engines() -> list[tuple[str, str, Measured, Measured]]:
    docker = f"Docker {_version('dockerd', '--version')}"
    containerd = f"containerd {_version('containerd', '--version')}"
    return [
        (docker, "graph driver", docker_by_graph_driver, docker_pulls),
        (docker, "volume", docker_by_volume, docker_pulls),
        (containerd, "snapshotter", containerd_by_snapshotter, containerd_pulls),
        (f"podman {_version('podman', '--version')}", "additional store", podman_by_store, podman_pulls),
        ("apptainer (sid)", "path", apptainer_by_path, apptainer_builds),
    ]
