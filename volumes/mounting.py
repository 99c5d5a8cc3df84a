"""Mounts of repositories in numbered directories, made by `ducc mount`, whose processes need the plugin no more.

What the client's configuration in /etc/cvmfs says of a repository holds for its volumes, too. For a snapshot it is
shown a directory that says the same, and which revision is meant.
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ducc.client.mountpoint import MOUNT_TYPE, MountEntry, mounted_at, unmount
from ducc.errors import DuccError
from volumes.names import SnapshotKind, VolumeName

log = logging.getLogger("ducc.volumes")

LONGEST_SECONDS = 50  # of each of two commands: Docker waits for two minutes


class MountFailed(DuccError):
    """The client could not mount; the text is its own."""

    exit_code = 54


class Mounting:
    """Mounts below *directory*, by the client's configuration in *etc*."""

    def __init__(self, directory: Path, etc: Path) -> None:
        top = directory.resolve()
        self._mounts, self._configurations, self._etc = top / "mounts", top / "etc", etc
        for made in (self._mounts, self._configurations):
            made.mkdir(mode=0o711, parents=True, exist_ok=True)

    def path(self, number: int) -> Path:
        return self._mounts / str(number)

    def mount(self, name: VolumeName, number: int) -> None:
        """Show *name* in the new directory *number*. Raises `MountFailed`; then nothing is left of it."""
        directory = self.path(number)
        directory.mkdir(mode=0o755)
        try:
            etc = self._etc if name.kind is SnapshotKind.NEWEST else self._pinned(name, number)
            _run([sys.executable, "-m", "ducc.cli.main", "mount", "--etc", etc, name.fqrn, directory], str(name))
        except BaseException:
            with suppress(DuccError, OSError):
                self.unmount(number)
            raise

    def is_alive(self, number: int) -> bool:
        """Is it mounted, and does it answer?"""
        if self._mounted(number) is None:
            return False
        try:
            os.statvfs(self.path(number))
        except OSError:
            return False
        return True

    def is_shown_elsewhere(self, number: int) -> bool:
        """Does any mount namespace show it at another path, as a running container's does?"""
        entry = self._mounted(number)
        return entry is not None and any(_mountpoints(entry.device) - {entry.mountpoint})

    def unmount(self, number: int) -> None:
        """Take the mount away, dead or alive; containers that have it keep it. Raises `DuccError`."""
        if self._mounted(number):
            unmount(self.path(number))
        with suppress(FileNotFoundError):
            self.path(number).rmdir()  # fails if anything is there: then nobody loses it
        shutil.rmtree(self._configurations / str(number), ignore_errors=True)

    def numbers(self) -> Iterator[int]:
        """Of all directories that there are, mounted or not."""
        return (int(entry.name) for entry in list(self._mounts.iterdir()) if entry.name.isdecimal())

    def _mounted(self, number: int) -> MountEntry | None:
        entry = mounted_at(self.path(number))
        return entry if entry is not None and entry.type == MOUNT_TYPE else None

    def _pinned(self, name: VolumeName, number: int) -> Path:
        """A directory of configuration that is *etc* with one more file read last."""
        made = self._configurations / str(number)
        own = made / "config.d"
        own.mkdir(parents=True)
        _link_all(self._etc, made)
        _link_all(self._etc / "config.d", own)
        last = own / f"{name.fqrn}.local"
        original = [f'. "{last.readlink()}"'] if last.is_symlink() else []
        last.unlink(missing_ok=True)
        last.write_text("\n".join([*original, *self._parameters(name), ""]))
        return made

    def _parameters(self, name: VolumeName) -> list[str]:
        tag, root = (name.snapshot, "") if name.kind is SnapshotKind.TAG else ("", name.snapshot)
        if name.kind is SnapshotKind.REVISION:
            root = _run(
                [sys.executable, "-m", "volumes.snapshots", name.fqrn, name.snapshot, str(self._etc)], str(name)
            ).strip()
        return [f"CVMFS_REPOSITORY_TAG='{tag}'", f"CVMFS_ROOT_HASH='{root}'", "CVMFS_REPOSITORY_DATE=''"]


def _link_all(source: Path, target: Path) -> None:
    """Links in *target* to all that is in *source*, less what *target* has."""
    with suppress(FileNotFoundError):
        for entry in source.iterdir():
            with suppress(FileExistsError):
                (target / entry.name).symlink_to(entry.absolute())


def _mountpoints(device: str) -> set[str]:
    """Where any process sees the file system *device*, as its namespace names the place."""
    tables: dict[int, Path] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            tables.setdefault((process / "ns" / "mnt").stat().st_ino, process / "mountinfo")
    found = set()
    for table in tables.values():
        with suppress(OSError):
            fields = (line.split(" ", 5) for line in table.read_text(errors="surrogateescape").splitlines())
            found |= {mountpoint for _, _, number, _, mountpoint, *_ in fields if number == device}
    return found


def _run(command: Sequence[str | Path], what: str) -> str:
    """What a command says on standard output. Raises `MountFailed` with the last line that it says of its failure."""
    try:
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            start_new_session=True, timeout=LONGEST_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise MountFailed(f"{what}: no answer for {LONGEST_SECONDS} s; are its servers reachable?") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"the client ended with status {done.returncode}"]
        raise MountFailed(f"{what}: {lines[-1].removeprefix('ducc: ')}")
    return done.stdout
