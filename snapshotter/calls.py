"""containerd's ten calls, on values.

A snapshot is published or local. A published one is committed the moment it is asked for, and its directory is a link
into a repository; containerd, told that it exists, fetches nothing. Local ones are as with containerd's overlay
snapshotter, and can lie on published ones. The snapshotter mounts nothing, so a restart has nothing to mount again.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ducc.image.digest import Digest, MalformedDigest
from ducc.rootfs.disk import Disk, Usage
from ducc.rootfs.locate import StackedLayer
from ducc.rootfs.overlay import Mount, bind, overlay
from ducc.rootfs.published import LayersUnavailable, NotPublished, PublishedLayer
from snapshotter import filters
from snapshotter.remote import REMOTE, TARGET, is_unplaced, wanted_layer
from snapshotter.snapshots import (
    BELOW,
    Kind,
    Snapshot,
    SnapshotExists,
    WrongState,
    committed,
    relabelled,
    require_labels,
    require_name,
    require_parent,
    require_placed,
    shown,
)
from snapshotter.store import Store

log = logging.getLogger("ducc.snapshotter")


class Layers(Protocol):
    """Where published layers are."""

    def find(self, wanted: StackedLayer) -> PublishedLayer:
        """Raises `NotPublished` or `LayersUnavailable`."""

    def find_all(self, wanted: Sequence[StackedLayer]) -> Sequence[PublishedLayer]:
        """The same for several."""

    def whole(self, stacks: Sequence[StackedLayer]) -> tuple[int, PublishedLayer] | None:
        """The first of *stacks* that has all its layers in one directory: its place among them, and the directory."""


class Snapshotter:
    """All snapshots of one directory. Calls may come from any thread."""

    def __init__(
        self,
        store: Store,
        disk: Disk,
        layers: Layers,
        clock_ns: Callable[[], int],
        decided: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """*decided* hears of each layer asked for: `published`, `absent`, `unavailable` or `unnamed`."""
        self._store, self._disk, self._layers, self._clock_ns, self._decided = store, disk, layers, clock_ns, decided
        self._directories = threading.RLock()  # who makes directories or looks for those that belong to nobody

    # --- making ---

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Make a snapshot to write to.

        Raises `SnapshotExists` if the name is taken, and also if the labels ask for a layer that is published: then
        there is a committed snapshot of that layer on *parent* from now on.
        """
        kept = require_labels(labels)
        if TARGET in kept:
            self._offer(parent, kept)
        return self._create(Kind.ACTIVE, key, parent, kept)

    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Make a snapshot to read."""
        return self._create(Kind.VIEW, key, parent, require_labels(labels))

    def _create(self, kind: Kind, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        below = self._chain_below(parent)
        lowers = self._lowers(below)
        now = self._clock_ns()
        with self._directories, self._store.transaction():
            new = self._store.add(Snapshot(0, require_name(key), parent, kind, labels, now, now))
            if kind == Kind.VIEW:
                self._disk.create_view(new.number)
            else:
                self._disk.create(new.number, lowers[0] if lowers else None)
        return self._mounts(new, below, lowers)

    def _offer(self, parent: str, labels: Mapping[str, str]) -> None:
        """Raises `SnapshotExists` if the layer that *labels* ask for is published; else containerd has to fetch it."""
        target = labels[TARGET]
        try:
            below = self._chain_below(parent)
            parent_snapshot = below[0] if below else None
            wanted = wanted_layer(labels, parent_snapshot)
            known = self._store.published(parent, wanted.stack)
            under = self._published_stack(wanted.below) if is_unplaced(labels, parent_snapshot) else ()
            found = self._layers.find(known.layer if known and known.layer else wanted)
        except MalformedDigest as error:
            self._decide("unnamed", target, str(error))
        except NotPublished as error:
            self._decide("absent", target, str(error))
        except LayersUnavailable as error:
            self._decide("unavailable", target, str(error))
        else:
            self._adopt(parent, labels, wanted, under, found)
            self._decide("published", target, f"layer {wanted.digest} is in {found.fqrn}")
            raise SnapshotExists(target)

    def _published_stack(self, stack: Digest | None) -> tuple[StackedLayer, ...]:
        """The layers of a stack that is published and known here, topmost first. Raises `NotPublished`."""
        for snapshot in self._store.of_stack(stack) if stack else ():
            chain = self._store.chain(snapshot.name)
            layers = [layer for one in chain for layer in _layers(one)]
            if all(one.layer for one in chain):
                return tuple(layers)
        raise NotPublished(f"what it is to lie on, {stack}, is not published itself")

    def _adopt(
        self,
        parent: str,
        labels: Mapping[str, str],
        layer: StackedLayer,
        under: tuple[StackedLayer, ...],
        found: PublishedLayer,
    ) -> None:
        """Let there be a committed snapshot of *layer* on *parent*, with the layers *under* it."""
        now, target = self._clock_ns(), str(layer.stack)
        with self._directories, self._store.transaction():
            if self._store.published(parent, layer.stack) is not None:
                return
            name = target if not self._store.has(target) else f"{target} on {parent or 'its own'}"
            marked = {**labels, REMOTE: found.fqrn}
            new = self._store.add(Snapshot(0, name, parent, Kind.COMMITTED, marked, now, now, layer=layer, under=under))
            self._disk.create_link(new.number, found.directory)

    def _decide(self, outcome: str, target: str, why: str) -> None:
        self._decided(outcome)
        level = logging.WARNING if outcome == "unavailable" else logging.INFO
        what = "started from the repository" if outcome == "published" else "left to containerd to fetch"
        log.log(level, "layer %s: chain=%s why=%s", what, shown(target), why)

    # --- using ---

    def mounts(self, key: str) -> list[Mount]:
        """How to mount an active snapshot or a view. Raises `LayersUnavailable`, `WrongState`, `UnknownSnapshot`."""
        snapshot, *below = self._store.chain(key)
        if snapshot.kind == Kind.COMMITTED:
            raise WrongState(f"snapshot {shown(key)} is committed: it is not mounted itself, only what lies on it")
        return self._mounts(snapshot, below, self._lowers(below))

    def commit(self, name: str, key: str, labels: Mapping[str, str], parent: str = "") -> None:
        """Let the active snapshot *key* never change again, and be called *name*; *parent* may be said only now."""
        kept = require_labels(labels)
        require_name(name)
        active = self._store.get(key)
        if parent:
            require_placed(active, parent)
        usage = self._disk.usage(active.number)
        with self._store.transaction():
            if parent and self._store.get(parent).kind != Kind.COMMITTED:
                raise WrongState(f"snapshot {shown(parent)} is not committed, so nothing can lie on it")
            self._store.replace(committed(self._store.get(key), name, parent, kept, usage, self._clock_ns()))

    def remove(self, key: str) -> None:
        """Forget a snapshot on which nothing lies. What is mounted of it stays until `cleanup` finds it unused."""
        with self._store.transaction():
            removed = self._store.remove(key)
        with self._directories:
            self._disk.discard(removed.number)

    def cleanup(self) -> None:
        """Delete what is left of snapshots that are gone."""
        with self._directories:
            deleted = self._disk.clean({snapshot.number for snapshot in self._store.all()})
        if deleted:
            log.info("deleted what was left of snapshots: directories=%d", deleted)

    # --- telling ---

    def stat(self, key: str) -> Snapshot:
        return self._store.get(key)

    def update(self, name: str, labels: Mapping[str, str], paths: Sequence[str]) -> Snapshot:
        """Change labels, the only thing that changes of a snapshot."""
        with self._store.transaction():
            changed = relabelled(self._store.get(name), labels, paths, self._clock_ns())
            self._store.replace(changed)
        return changed

    def listed(self, wanted: Sequence[str]) -> list[Snapshot]:
        """The snapshots that one of the filters *wanted* fits, parents before children."""
        fits = filters.any_of(wanted)
        return [snapshot for snapshot in self._store.all() if fits(snapshot)]

    def usage(self, key: str) -> Usage:
        snapshot = self._store.get(key)
        return snapshot.usage if snapshot.kind == Kind.COMMITTED else self._disk.usage(snapshot.number)

    # --- what lies below ---

    def _chain_below(self, parent: str) -> list[Snapshot]:
        """The snapshots below a new one on *parent*, topmost first."""
        if not parent:
            return []
        chain = self._store.chain(parent)
        require_parent(chain[0])
        return chain

    def _lowers(self, chain: Sequence[Snapshot]) -> list[Path]:
        """What is to lie below a snapshot on *chain*, topmost first; all of it can be read now.

        The list ends with the first published layer that a repository has in one directory with all below it.
        Links of layers that are elsewhere than they were follow them.
        """
        lowest_local = max((place for place, one in enumerate(chain) if one.layer is None), default=-1)
        published = lowest_local + 1  # from here on nothing is local
        whole = self._layers.whole([snapshot.layer for snapshot in chain[published:] if snapshot.layer])
        apart = chain if whole is None else chain[: published + whole[0]]
        found = iter(self._found(apart))
        lowers: list[Path] = []
        for snapshot in apart:
            if snapshot.layer is None:
                lowers.append(self._disk.files(snapshot.number))
            for place, _ in enumerate(_layers(snapshot)):
                lowers.append(self._disk.point(snapshot.number, next(found).directory, place))
        if whole is not None:
            lowers.append(self._disk.point_whole(chain[published + whole[0]].number, whole[1].directory))
        return lowers

    def _found(self, chain: Sequence[Snapshot]) -> Sequence[PublishedLayer]:
        try:
            return self._layers.find_all([layer for snapshot in chain for layer in _layers(snapshot)])
        except NotPublished as error:
            raise LayersUnavailable(f"{error}, and snapshot {shown(chain[0].name)} is made of it") from error

    def _mounts(self, snapshot: Snapshot, below: Sequence[Snapshot], lowers: Sequence[Path]) -> list[Mount]:
        own = self._disk.files(snapshot.number)
        if not lowers and BELOW in snapshot.labels:  # unpacking must leave whiteouts as an overlay has them
            lowers = [self._disk.empty]
        if not lowers:
            return [bind(own, writable=snapshot.kind == Kind.ACTIVE)]
        if snapshot.kind == Kind.ACTIVE:
            return [overlay(lowers, own, self._disk.work(snapshot.number))]
        return [_read_only(lowers, below, self._disk.empty)]


def _layers(snapshot: Snapshot) -> tuple[StackedLayer, ...]:
    """The published layers that a snapshot is, topmost first; none if it is local."""
    return (snapshot.layer, *snapshot.under) if snapshot.layer else ()


def _read_only(lowers: Sequence[Path], below: Sequence[Snapshot], empty: Path) -> Mount:
    """A local snapshot alone is shown as it is; anything with a published layer is an overlay with a local directory.

    Without one, some clients leave overlayfs no usable length of names, and the repository's mount flags would count.
    """
    if all(snapshot.layer is not None for snapshot in below):
        return overlay([*lowers, empty])
    return bind(lowers[0], writable=False) if len(lowers) == 1 else overlay(lowers)
