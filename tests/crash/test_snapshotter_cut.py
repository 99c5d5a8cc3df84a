"""The snapshotter is killed at every step of every call, and started again: what it had said is there, whole.

A step is whatever changes the disk: a name made, moved or removed, a statement of the database. The calls run in a
process of their own, which ends by SIGKILL before the step; after the last one, before the answer.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from ducc.rootfs.disk import Disk
from ducc.rootfs.locate import StackedLayer
from ducc.rootfs.published import PublishedLayer
from snapshotter.calls import Snapshotter
from snapshotter.remote import LAYER_LABELS, TARGET
from snapshotter.snapshots import BELOW, Kind, SnapshotError, SnapshotExists
from snapshotter.store import Store
from tests.needs import need_root

LAYERS = [Digest(digit * 64) for digit in "12"]
CHAINS = chain_ids(LAYERS)
STEPS = ("os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.chown")

State = dict[str, tuple[str, Kind, tuple[tuple[str, str], ...]]]
Call = Callable[[Snapshotter], object]


@dataclass
class Repository:
    """Where layers are, which may move."""

    top: Path

    def find(self, wanted: StackedLayer) -> PublishedLayer:
        return PublishedLayer("images.test", self.top / wanted.digest.hex[:2])

    def find_all(self, wanted: Sequence[StackedLayer]) -> list[PublishedLayer]:
        return [self.find(layer) for layer in wanted]

    def whole(self, stacks: Sequence[StackedLayer]) -> tuple[int, PublishedLayer] | None:
        return None


def labels(number: int) -> dict[str, str]:
    return {TARGET: str(CHAINS[number]), LAYER_LABELS[0]: str(LAYERS[number])}


def offered(snapshotter: Snapshotter, number: int) -> None:
    with suppress(SnapshotExists):
        snapshotter.prepare(f"extract-{number}", str(CHAINS[number - 1]) if number else "", labels(number))


CALLS: dict[str, Call] = {
    "Prepare": lambda s: s.prepare("new", "base", {}),
    "Prepare without a parent": lambda s: s.prepare("new", "", {}),
    "Prepare of a published layer": lambda s: offered(s, 1),
    "View": lambda s: s.view("new", str(CHAINS[0]), {}),
    "Mounts of layers that have moved": lambda s: s.mounts("container"),
    "Commit": lambda s: s.commit("new", "active", {"a": "b"}),
    "Commit with a parent": lambda s: s.commit("new", "lone", {}, "base"),
    "Remove": lambda s: s.remove("active"),
    "Remove of what has a directory full": lambda s: s.remove("full"),
    "Stat": lambda s: s.stat("base"),
    "Update": lambda s: s.update("base", {"x": "y"}, []),
    "List": lambda s: s.listed([]),
    "Usage": lambda s: s.usage("full"),
    "Cleanup": lambda s: s.cleanup(),
}


@contextmanager
def opened(root: Path, repository: Repository) -> Iterator[Snapshotter]:
    """As the program opens it when it starts."""
    disk = Disk(root, "snapshots")
    store = Store(disk.database)
    try:
        yield Snapshotter(store, disk, repository, lambda: 1)
    finally:
        store.close()


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Repository]:
    """Snapshots of all kinds, with files; left-overs of one that is gone; and layers that have just moved."""
    need_root()
    root, repository = tmp_path / "state", Repository(tmp_path / "one")
    for place in ("one", "two"):
        for layer in LAYERS:
            (tmp_path / place / layer.hex[:2]).mkdir(parents=True)
    with opened(root, repository) as snapshotter:
        for name in ("base", "full"):
            (mount,) = snapshotter.prepare(f"{name}-", "", {})
            Path(mount.source, "file").write_text(name)
            if name == "full":
                for number in range(3):
                    Path(mount.source, f"d{number}", "e").mkdir(parents=True)
            snapshotter.commit(name, f"{name}-", {})
        snapshotter.prepare("active", "base", {})
        snapshotter.prepare("lone", "", {BELOW: str(CHAINS[0])})
        offered(snapshotter, 0)
        snapshotter.prepare("container", str(CHAINS[0]), {})
    (root / "snapshots" / "99" / "fs" / "left").mkdir(parents=True)
    (root / "gone" / "98" / "fs").mkdir(parents=True)
    return root, Repository(tmp_path / "two")


def state(snapshotter: Snapshotter) -> State:
    return {one.name: (one.parent, one.kind, tuple(one.labels.items())) for one in snapshotter.listed([])}


@dataclass
class Killer:
    """Ends this process before step *last*, counted from 0."""

    last: int
    seen: int = field(default=0)

    def step(self) -> None:
        if self.seen == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in STEPS:
            self.step()


def killed(root: Path, repository: Repository, call: Call, step: int) -> bool:
    """Run *call* in another process, killed before *step*; False if it has fewer."""
    process = os.fork()
    if process == 0:
        try:
            with opened(root, repository) as snapshotter:
                killer = Killer(step)
                snapshotter._store._database.set_trace_callback(lambda statement: killer.step())
                sys.addaudithook(killer.audit)
                call(snapshotter)
                killer.step()
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_lost_or_half_done_whenever_it_is_killed(
    name: str, prepared: tuple[Path, Repository], tmp_path: Path
) -> None:
    root, repository = prepared
    call = CALLS[name]
    with opened(shutil.copytree(root, tmp_path / "undisturbed", symlinks=True), repository) as snapshotter:
        before = state(snapshotter)
        call(snapshotter)
        after = state(snapshotter)
    for step in count():
        victim = shutil.copytree(root, tmp_path / f"victim-{step}", symlinks=True)
        was_killed = killed(victim, repository, call, step)
        with opened(victim, repository) as snapshotter:
            snapshotter.cleanup()  # as at every start
            found = state(snapshotter)
            assert found in (before, after), step
            _assert_sound(snapshotter, victim)
            if found != after:
                call(snapshotter)  # containerd tries again
                assert state(snapshotter) == after, step
                _assert_sound(snapshotter, victim)
        shutil.rmtree(victim)
        if not was_killed:
            assert found == after
            break
    assert step > 0  # the answer itself is a step


def _assert_sound(snapshotter: Snapshotter, root: Path) -> None:
    """Every snapshot has its directory and its files, can be mounted if it is to be, and nobody's directory is left."""
    snapshots = snapshotter.listed([])
    directories = {name for name in os.listdir(root / "snapshots") if name != "0"}
    assert directories == {str(one.number) for one in snapshots}
    for one in snapshots:
        files = root / "snapshots" / str(one.number) / "fs"
        assert files.is_dir()
        assert one.layer is None or os.readlink(files).endswith(one.layer.digest.hex[:2])
        if one.name in ("base", "full"):
            assert (files / "file").read_text() == one.name
        if one.kind != Kind.COMMITTED:
            with suppress(SnapshotError):
                assert snapshotter.mounts(one.name)
