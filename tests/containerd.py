"""Debian's containerd with a proxy snapshotter, in directories of its own, for the length of a `with` block."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cri import Kubelet
from tests.needs import need_program

NAMESPACE = "k8s.io"  # where what CRI pulls is
NAME = "ducc"
START_SECONDS = 60
CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{directory}/c.sock"
[proxy_plugins.{name}]
  type = "snapshot"
  address = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_port = "0"
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{default}"
  disable_snapshot_annotations = false
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{directory}/hosts"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{directory}/cni/bin"
  conf_dir = "{directory}/cni/net.d"
"""


@dataclass(frozen=True)
class Containerd:
    """One that keeps its files in *directory*; *enter* is the command that runs `ctr` where its files are."""

    directory: Path
    enter: tuple[str, ...] = ()

    @property
    def address(self) -> Path:
        return self.directory / "c.sock"

    @property
    def kubelet(self) -> Kubelet:
        return Kubelet(self.address, self.directory / "logs")

    @property
    def hosts(self) -> Path:
        """Where it reads, at each pull, which mirrors a registry has."""
        return self.directory / "hosts"

    def add_mirror(self, registry: str, url: str) -> None:
        """Let it ask at *url* first for what *registry* (plain http) has."""
        (self.hosts / registry).mkdir(parents=True)
        mirror = f'[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
        (self.hosts / registry / "hosts.toml").write_text(f'server = "http://{registry}"\n{mirror}')

    def ctr(
        self, *arguments: object, status: int | None = 0, namespace: str = NAMESPACE
    ) -> "subprocess.CompletedProcess[str]":
        command = [*self.enter, "ctr", "--address", self.address, "--namespace", namespace, *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120)
        assert status is None or done.returncode == status, f"{command}: {done.stdout}\n{done.stderr}"
        return done

    def run(self, reference: str, name: str, *command: str, status: int | None = 0, snapshotter: str = NAME) -> str:
        """What a container of the image prints, which is gone afterwards."""
        done = self.ctr("run", "--rm", "--snapshotter", snapshotter, reference, name, *command, status=status)
        return done.stdout if status == 0 else done.stderr

    def snapshots(self) -> list[str]:
        lines = self.ctr("snapshots", "--snapshotter", NAME, "ls").stdout.splitlines()[1:]
        return [line.split()[0] for line in lines]


@contextmanager
def running_containerd(directory: Path, snapshotter: Path, pause: str, default: str = NAME) -> Iterator[Containerd]:
    """Run with *snapshotter* (a socket) as its proxy plugin `ducc`; CRI uses *default*, image *pause* holds pods."""
    need_program("containerd")
    need_program("runc")
    directory.mkdir()
    config = directory / "config.toml"
    config.write_text(
        CONFIG.format(directory=directory, name=NAME, snapshotter=snapshotter, pause=pause, default=default)
    )
    with (directory / "log").open("wb") as log:
        command = ["setpriv", "--pdeathsig", "KILL", "containerd", "--config", config]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    running = Containerd(directory)
    try:
        _wait(running, process)
        yield running
    finally:
        _remove_containers(running)
        process.terminate()
        process.wait(60)


def _wait(running: Containerd, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if running.ctr("version", status=None).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"containerd did not start:\n{(running.directory / 'log').read_text()}")


def _remove_containers(running: Containerd) -> None:
    for name in running.ctr("containers", "ls", "--quiet", status=None).stdout.split():
        running.ctr("tasks", "rm", "--force", name, status=None)
        running.ctr("containers", "rm", name, status=None)
