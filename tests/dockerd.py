"""Debian's dockerd in directories of its own, for the length of a `with` block, and the client that speaks to it.

It can be killed and started again over the same directories. Its plugins are those of the machine, in
/run/docker/plugins: a socket there belongs to a test, by a name of its own.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.leftovers import SESSION_VARIABLE
from tests.needs import need_program, need_root

PLUGINS = Path("/run/docker/plugins")
START_SECONDS = 120
CLIENT = "/usr/bin/docker"  # Debian's, of the daemon's own version, whatever else is on the PATH


@dataclass
class Dockerd:
    """One installation below *directory*. Containers have no network but the host's, if they ask for it."""

    directory: Path
    options: Sequence[str] = ()
    registry: str = ""  # host:port that is asked by plain http
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def address(self) -> str:
        return f"unix://{self.directory}/d.sock"

    @property
    def log(self) -> Path:
        return self.directory / "dockerd.log"

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        command = [
            "setpriv", "--pdeathsig", "TERM", "dockerd", "--host", self.address, "--data-root", self.directory / "data",
            "--exec-root", self.directory / "exec", "--pidfile", self.directory / "pid", "--bridge=none",
            "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--registry-mirror", "http://127.0.0.1:1",
            *(["--insecure-registry", self.registry] if self.registry else []), *self.options,
        ]  # fmt: skip
        for left in ("pid", "exec/containerd/containerd.pid"):  # a killed containerd may stay a zombie for ever here
            (self.directory / left).unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment()
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.docker("version", status=None).returncode == 0:
                return
            time.sleep(0.2)
        raise RuntimeError(f"dockerd did not start:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL: nothing is put in order, and containers run on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it, its containers and its containerd, and take away what stays mounted."""
        if self.process is None:
            return
        if self.process.poll() is None:
            for container in self.docker("ps", "-aq", status=None).stdout.split():
                self.docker("rm", "--force", container, status=None)
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        self._end_containerd()
        self._unmount()

    def docker(
        self, *words: object, status: int | None = 0, input: str | None = None, timeout: float = 300, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of the client; any other exit status than *status* is a failure, None allows all."""
        command = [CLIENT, "--host", self.address, *map(str, words)]
        done = subprocess.run(
            command, input=input if input is not None else "", capture_output=True, text=True, check=False,
            timeout=timeout, env={**self._environment(), **more},
        )  # fmt: skip
        shown = " ".join(map(str, words))
        assert status in (None, done.returncode), f"docker {shown}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def run(self, *words: object, status: int | None = 0) -> str:
        """What a container prints, which has no network and is gone afterwards; what the client complains of, else."""
        done = self.docker("run", "--rm", "--network", "none", *words, status=status)
        return done.stdout if done.returncode == 0 else done.stderr

    def load_tar(self, tar: Path, name: str) -> None:
        """Make an image of a root file system in an archive."""
        self.docker("import", tar, name)

    def _environment(self) -> dict[str, str]:
        session = {key: value for key, value in os.environ.items() if key == SESSION_VARIABLE}
        return {"PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.directory), **session}

    def _end_containerd(self) -> None:
        """The daemon's own one and its shims, which outlive a daemon that was killed, and what runs below these."""
        mark = str(self.directory / "exec").encode()
        ours = {number for number in _processes() if mark in _read(number, "cmdline")}
        below = {number for number in _processes() if _parent(number) in ours}
        for number in ours | below:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def _unmount(self) -> None:
        table = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
        below = [line.split()[1] for line in table if line.split()[1].startswith(f"{self.directory}/")]
        for mountpoint in reversed(below):
            subprocess.run(["umount", "--lazy", mountpoint], check=False, capture_output=True)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]


def _parent(process: int) -> int:
    """Zero for one that has ended."""
    after_name = _read(process, "stat").rpartition(b")")[2].split()
    return int(after_name[1]) if after_name else 0


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:
        return b""


@contextmanager
def running_dockerd(directory: Path, *options: str, registry: str = "") -> Iterator[Dockerd]:
    """Run it with *options*, for images from *registry*, until the block ends."""
    need_root()
    need_program("dockerd")
    daemon = Dockerd(directory, options, registry)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
