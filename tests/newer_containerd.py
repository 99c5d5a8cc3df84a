"""containerd of newer Debian suites, each in a root of its own, running for the length of a `with` block.

The root has its own /run, /var and /tmp, but for one directory, which is where it is on the machine: what lies there
has the same path inside and outside.
"""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.cri import Kubelet
from tests.images.debian import bootstrap, install
from tests.images.workshop import locked
from tests.needs import need_program, need_root

CACHE = Path(__file__).parents[1] / ".cache" / "containerd"
DEBIAN = Path(__file__).parent / "images" / "debian.py"
PACKAGES = {
    "trixie": ("ca-certificates", "containerd", "runc"),
    "sid": ("ca-certificates", "containerd", "docker.io", "runc"),
}
START_SECONDS = 120

ENTER = """
set -e
root=$1; shared=$2; shift 2
mount --bind "$root" "$root"
for tree in proc sys dev; do
    mount --rbind "/$tree" "$root/$tree"
    mount --make-rprivate "$root/$tree"
done
for empty in run tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$empty"; done
mkdir -p "$root$shared"
mount --rbind "$shared" "$root$shared"
cd "$root"
pivot_root . .
umount --lazy .
mount --make-rshared /
cd /
exec "$@"
"""


def suite_root(suite: str) -> Path:
    """Debian *suite* with containerd, from the cache or newly made (a minute)."""
    need_root()
    need_program("debootstrap")
    key = hashlib.sha256(" ".join(PACKAGES[suite]).encode() + DEBIAN.read_bytes()).hexdigest()[:12]
    root = CACHE / f"{suite}-{key}"
    with locked(CACHE):
        if not root.exists():
            for outdated in CACHE.glob(f"{suite}-*"):
                shutil.rmtree(outdated)
            _make(root, suite)
    return root


def _make(root: Path, suite: str) -> None:
    part = root.with_name(f"{suite}-part")
    part.mkdir()
    try:
        bootstrap(part, suite)
        install(part, *PACKAGES[suite], suite=suite)
    except RuntimeError as refused:
        pytest.skip(f"no Debian {suite}: the machine's mirror must have this suite: {refused}")
    (part / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (part / "etc" / "resolv.conf").write_text("")
    part.rename(root)


@contextmanager
def running_newer_containerd(
    suite: str, directory: Path, shared: Path, settings: str, runtime_class: str = ""
) -> Iterator[Kubelet]:
    """Run with *settings* (TOML, its version first) and files in the new *directory*, which is below *shared*."""
    root = suite_root(suite)
    directory.mkdir()
    version, _, tables = settings.partition("\n")
    places = f'root = "{directory}/root"\nstate = "{directory}/state"\n[grpc]\n  address = "{directory}/c.sock"\n'
    (directory / "config.toml").write_text(f"{version}\n{places}{tables}")
    with (directory / "log").open("wb") as log:
        command = ["unshare", "--mount", "--propagation", "private", "setpriv", "--pdeathsig", "KILL"]
        inside = ["containerd", "--config", str(directory / "config.toml")]
        process = subprocess.Popen(
            [*command, "sh", "-c", ENTER, "enter", str(root), str(shared), *inside],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    kubelet = Kubelet(directory / "c.sock", directory / "logs", runtime_class)
    try:
        _wait(kubelet, process, directory / "log")
        yield kubelet
    finally:
        process.terminate()
        process.wait(60)


def _wait(kubelet: Kubelet, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            kubelet.version()
        except grpc.RpcError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"containerd did not start:\n{log.read_text()[-4000:]}")
