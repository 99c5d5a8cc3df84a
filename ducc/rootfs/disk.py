"""An engine's own directories: what is local of a snapshot or layer, and what is left of one that is gone.

    <name>/<number>/fs     a local one's files, or a link to where a published layer is
    <name>/<number>/fs1 …  links to where the layers below it are, of one that is several
    <name>/<number>/whole  a link to where a published layer is with all that are below it, if that is published
    <name>/<number>/work   overlayfs's scratch; of those that are written to
    <name>/0/fs            empty: the lowest directory of overlays that need one
    gone/<number>          being deleted

Names are short and numeric: who mounts says lower directories relative to `<name>`, and hundreds must fit in a page.
"""

import os
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ducc.rootfs.mounts import mounted
from ducc.rootfs.overlay import directories_in_use, require_mountable
from ducc.rootfs.state import StateUnusable

_BLOCK = 512  # what st_blocks counts in, whatever the file system


@dataclass(frozen=True, slots=True)
class Usage:
    """What a directory takes of the local disk, without those below it."""

    size_bytes: int = 0
    inodes: int = 0


NOTHING_USED = Usage()


class Disk:
    """Everything below *root*; only root sees what is there. Raises `StateUnusable` where it can't be.

    *name* is what the numbered directories are in: `snapshots`, `layers`.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = require_mountable(root)
        self.top = root / name
        self._gone = root / "gone"
        self._require_ours()
        try:
            for directory, mode in ((root, 0o711), (self.top, 0o700), (self._gone, 0o700)):
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(mode)
            self.empty.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateUnusable(f"{error.filename}: {error.strerror}") from error

    @property
    def database(self) -> Path:
        return self.root / f"{self.top.name}.sqlite"

    @property
    def empty(self) -> Path:
        return self.top / "0" / "fs"

    def files(self, number: int) -> Path:
        return self.top / str(number) / "fs"

    def work(self, number: int) -> Path:
        return self.top / str(number) / "work"

    # --- making and taking away ---

    def create(self, number: int, below: Path | None) -> None:
        """Make the directories of a snapshot that is written to, its root owned as *below* is."""
        home = self._home(number)
        _make(self.files(number), 0o755)
        _make(self.work(number), 0o711)
        if below is not None:
            status = os.stat(below)
            os.chown(self.files(number), status.st_uid, status.st_gid)
        _sync(home)

    def create_view(self, number: int) -> None:
        """Make the directory of a snapshot that is only read."""
        self._home(number)
        _make(self.files(number), 0o755)

    def create_link(self, number: int, target: Path) -> None:
        """Let the snapshot's files be those of *target*."""
        home = self._home(number)
        self.files(number).symlink_to(target)
        _sync(home)

    def point(self, number: int, target: Path, place: int = 0) -> Path:
        """Let the link that a published snapshot's files are lead to *target*; mounts that there are do not notice.

        Of a snapshot that is several layers, *place* 0 is the topmost one.
        """
        return _led(self.files(number) if place == 0 else self.top / str(number) / f"fs{place}", target)

    def point_whole(self, number: int, target: Path) -> Path:
        """The same for a published snapshot with all that are below it."""
        return _led(self.top / str(number) / "whole", target)

    def discard(self, number: int) -> bool:
        """Delete what a snapshot had, unless it is mounted somewhere; was it deleted?"""
        if str(number) in self._in_use():
            return False
        self._delete(str(number))
        return True

    def clean(self, alive: set[int]) -> int:
        """Delete what belongs to no snapshot of *alive* and is not in use; how many directories that were.

        Nobody may make or remove a snapshot meanwhile.
        """
        kept = {"0", *map(str, alive)}
        orphans = [name for name in os.listdir(self.top) if name not in kept]
        if orphans:
            in_use = self._in_use()
            orphans = [name for name in orphans if name not in in_use]
        for name in orphans:
            self._delete(name)
        for name in os.listdir(self._gone):
            shutil.rmtree(self._gone / name, ignore_errors=True)
        return len(orphans)

    def usage(self, number: int) -> Usage:
        """What the snapshot takes of this disk. Files that go meanwhile are not counted."""
        if self.files(number).is_symlink():
            return NOTHING_USED
        blocks, seen = 0, set()
        for status in _statuses(self.files(number)):
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                blocks += status.st_blocks
        return Usage(blocks * _BLOCK, len(seen))

    def _home(self, number: int) -> Path:
        home = self.top / str(number)
        if home.exists():  # of a snapshot that a crash kept from being remembered; nobody was told its number
            self._delete(home.name)
        home.mkdir(mode=0o700)
        return home

    def _in_use(self) -> set[str]:
        return directories_in_use(mounted(), self.top)

    def _delete(self, name: str) -> None:
        try:
            (self.top / name).rename(self._gone / name)
        except FileNotFoundError:
            return
        shutil.rmtree(self._gone / name, ignore_errors=True)

    def _require_ours(self) -> None:
        """Directories without our database are somebody else's, or the only copy of what an engine counts on."""
        if self.database.exists() or not self.top.is_dir():
            return
        if set(os.listdir(self.top)) - {"0"}:
            raise StateUnusable(
                f"{self.top} is not empty and {self.database} is missing: restore it, or choose another root"
            )


def _statuses(directory: Path) -> Iterator[os.stat_result]:
    pending = [os.fspath(directory)]
    while pending:
        path = pending.pop()
        try:
            status = os.lstat(path)
            names = os.listdir(path) if stat.S_ISDIR(status.st_mode) else []
        except FileNotFoundError:
            continue
        yield status
        pending.extend(os.path.join(path, name) for name in names)


def _led(link: Path, target: Path) -> Path:
    """*link*, leading to *target* from now on."""
    if not link.is_symlink() or os.readlink(link) != str(target):
        new = link.with_name(f"new-{threading.get_ident()}")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.rename(link)
    return link


def _make(directory: Path, mode: int) -> None:
    """Whatever the umask, since containers see the mode."""
    directory.mkdir()
    directory.chmod(mode)


def _sync(directory: Path) -> None:
    """Let the names in *directory*, and its own, outlast a power cut."""
    for path in (directory, directory.parent):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
