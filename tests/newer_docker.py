"""Docker of Debian sid on a containerd beside it, in the root of its own, for the length of a `with` block."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.dockerd import START_SECONDS, Dockerd
from tests.newer_containerd import ENTER, suite_root

BOTH = """
directory=$1
setpriv --pdeathsig KILL containerd --config "$directory/containerd.toml" >"$directory/containerd.log" 2>&1 &
until [ -S "$directory/c.sock" ]; do sleep 0.1; done
exec dockerd --config-file "$directory/daemon.json" --host "unix://$directory/d.sock" --data-root "$directory/data" \\
    --exec-root "$directory/exec" --pidfile "$directory/pid" --containerd "$directory/c.sock" \\
    --bridge=none --iptables=false --ip6tables=false
"""


@contextmanager
def running_docker_on_containerd(
    directory: Path, shared: Path, containerd: str, daemon: dict[str, Any]
) -> Iterator[Dockerd]:
    """Run both with these settings (TOML, `daemon.json`) in the new *directory*, which is below *shared*."""
    root = suite_root("sid")
    directory.mkdir()
    version, _, tables = containerd.partition("\n")
    places = f'root = "{directory}/root"\nstate = "{directory}/state"\n[grpc]\n  address = "{directory}/c.sock"\n'
    (directory / "containerd.toml").write_text(f"{version}\n{places}{tables}")
    (directory / "daemon.json").write_text(json.dumps(daemon))
    docker = Dockerd(directory)
    with docker.log.open("wb") as log:
        command = ["unshare", "--mount", "--propagation", "private", "setpriv", "--pdeathsig", "KILL"]
        inside = ["sh", "-c", BOTH, "both", str(directory)]
        process = subprocess.Popen(
            [*command, "sh", "-c", ENTER, "enter", str(root), str(shared), *inside],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    docker.process = process
    try:
        _wait(docker, process)
        yield docker
    finally:
        for container in docker.docker("ps", "-aq", status=None).stdout.split():
            docker.docker("rm", "--force", container, status=None)
        process.terminate()
        process.wait(60)


def _wait(docker: Dockerd, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if docker.docker("version", status=None).returncode == 0:
            return
        time.sleep(0.2)
    raise RuntimeError(f"dockerd did not start:\n{docker.log.read_text()[-4000:]}")
