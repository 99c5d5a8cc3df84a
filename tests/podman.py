"""Podman with a repository's store: Debian 12's on this machine, or sid's in its own root, as root or as a user.

Each command has namespaces of its own, so that what podman mounts and leaves running ends with it, and its helpers are
waited for (podman waits 20 s for one that nobody buries); what it keeps lies in a directory of the test's.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import sid
from tests.needs import need_program, need_root

LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  # what this machine allows to be set
OWN_PROCESSES = ("--pid", "--fork", "--kill-child", "--mount-proc")
TIMEOUT_SECONDS = 300
UID = 4711  # of the user on this machine, who has no name here

STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{home}/graph"
runroot = "{home}/run"
[storage.options]
additionalimagestores = ["{store}"]
"""
ROOTLESS = """\
[storage.options.overlay]
mount_program = "/usr/bin/fuse-overlayfs"
mountopt = "squash_to_root"
"""
ENGINE = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
"""
HERE = """
set -e
directory=$1; home=$2; user=$3; shift 3
mount --make-rshared /
mkdir -p /run/libpod /dev/shm
for state in /run/libpod /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs $state; done  # locks, which all would share
if [ "$user" = root ]; then exec "$@"; fi
rm -f "$directory/fuse"
mknod -m 666 "$directory/fuse" c 10 229
mount --bind "$directory/fuse" /dev/fuse
for table in passwd group subuid subgid; do
    [ -e /etc/$table ] || touch /etc/$table
    mount --bind "$directory/$table" /etc/$table
done
cd /
exec setpriv --reuid "$user" --regid "$user" --init-groups env HOME="$home" XDG_RUNTIME_DIR="$home/runtime" "$@"
"""
SCRIPT = "{script}\nexit $?\n"  # so that the shell stays: it is the one that waits for all
RUN = """
podman run --detach --name it {words} > /dev/null || exit 125
while [ "$(podman inspect --format '{{{{.State.Running}}}}' it)" = true ]; do sleep 0.1; done
podman logs it
status=$(podman inspect --format '{{{{.State.ExitCode}}}}' it)
podman rm --force it > /dev/null
exit $status"""
"""Not attached: on a busy machine podman 4.3 then often waits 20 s for a status that it has."""


@dataclass(frozen=True)
class Podman:
    """*root* is where the repository is mounted, *store* the store's path in it; *directory* is podman's to write."""

    directory: Path
    root: Path
    store: str = "podmanStore"
    user: str = "root"
    in_sid: bool = False

    def __call__(self, *words: object, status: int | None = 0) -> str:
        """What `podman WORD…` prints."""
        done = self.script(f"podman {shlex.join(map(str, words))}")
        assert status in (None, done.returncode), f"podman {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, image: str, *words: object) -> str:
        """What a container of *image* prints, which is gone afterwards."""
        done = self.script(RUN.format(words=shlex.join([*self.options, image, *map(str, words)])))
        assert done.returncode == 0, f"podman run {image} {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def options(self) -> Sequence[str]:
        """What every `podman run` needs here."""
        return ("--network=none", *(LIMITS if self.user == "root" else ()))

    def script(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of the shell in which `podman` is this one."""
        inside, root = ("/srv", "/mnt") if self.in_sid else (str(self.directory), str(self.root))
        name = f"{self.user}-{'sid' if self.in_sid else 'here'}"
        self._write_settings(self.directory / name, f"{inside}/{name}", f"{root}/{self.store}")
        variables = {
            "CONTAINERS_STORAGE_CONF": f"{inside}/{name}/storage.conf",
            "CONTAINERS_CONF": f"{inside}/{name}/containers.conf",
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }
        settings = [f"{key}={value}" for key, value in variables.items()]
        command = ["env", *settings, "sh", "-c", SCRIPT.format(script=script)]
        if self.in_sid:
            return sid.enter(command, self.root, self.user, self.directory, OWN_PROCESSES)
        return self._here(f"{inside}/{name}", command)

    def _here(self, home: str, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        need_root()
        for program in ("podman", "fuse-overlayfs", "newuidmap"):
            need_program(program)
        enter = ["unshare", "--mount", "--propagation", "private", *OWN_PROCESSES, "sh", "-c", HERE, "podman"]
        return subprocess.run(
            [*enter, str(self.directory), home, self.user, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=TIMEOUT_SECONDS,
        )

    def _write_settings(self, directory: Path, home: str, store: str) -> None:
        (directory / "runtime").mkdir(parents=True, exist_ok=True)
        storage = STORAGE.format(home=home, store=store) + (ROOTLESS if self.user != "root" else "")
        (directory / "storage.conf").write_text(storage)
        (directory / "containers.conf").write_text(ENGINE)
        if self.user == "root":
            return
        uid = sid.UID if self.in_sid else UID
        for path in (directory, *directory.iterdir()):
            os.chown(path, uid, uid)
        self._write_tables()

    def _write_tables(self) -> None:
        """Users as this machine knows them, and one more."""
        lines = {"passwd": f"{sid.USER}:x:{UID}:{UID}::/:/bin/sh", "group": f"{sid.USER}:x:{UID}:"}
        for table, line in lines.items():
            (self.directory / table).write_text(f"{Path('/etc', table).read_text()}{line}\n")
        for table in ("subuid", "subgid"):
            (self.directory / table).write_text(f"{sid.USER}:100000:65536\n")
