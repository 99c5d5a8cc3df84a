"""Docker's calls, on values.

An ordinary layer is a directory on the local disk, as with Docker's own overlay2. A layer that holds `thin.json` and
nothing else stands for published layers: what lies on it is mounted over their directories in a repository. Whoever
gets a layer has it mounted, once for all; when the last one has put it back, it is unmounted.

The counts of users outlive this process, as do the mounts. What a killed process left is put in order when the next one
begins; what a killed daemon left, when the next one calls `Init` (which is who makes a `Driver`).
"""

import itertools
import logging
import os
import shutil
import stat
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ducc.image.thin import FILE, ThinImage
from ducc.layer.stream import Readable
from ducc.rootfs.mounts import mounted
from graphdriver.archive import archive_of_changes, archive_of_layer
from graphdriver.changes import Change, ChangeKind, layer_changes, tree_changes
from graphdriver.directory import Below, content_size, size_of
from graphdriver.disk import LayerDisk
from graphdriver.layers import (
    Layer,
    RefusedCall,
    State,
    UnknownLayer,
    require_label,
    require_name,
    require_no_quota,
    require_whole,
    shown,
)
from graphdriver.mounting import Mounter, unmount
from graphdriver.store import Store
from graphdriver.unpack import unpack

log = logging.getLogger("ducc.graphdriver")

_OPTIONS = ("index=off", "redirect_dir=off", "metacopy=off")  # so that an upper directory says all that it changes
_LONGEST_THIN = 4 << 20  # bytes


class Images(Protocol):
    """Where published layers are."""

    def directories(self, image: ThinImage) -> Sequence[Path]:
        """The directories of the layers of *image*, topmost first. Raises `DuccError` if one can't be read now."""


class Driver:
    """All layers of one home directory. Calls may come from any thread."""

    def __init__(self, store: Store, disk: LayerDisk, images: Images) -> None:
        self._store, self._disk, self._images = store, disk, images
        self._mounter = Mounter(disk.top)
        self._directories = threading.RLock()  # who makes directories or looks for those that belong to nobody
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()

    def close(self) -> None:
        self._mounter.close()
        self._store.close()

    # --- beginning and ending ---

    def recover(self) -> None:
        """Put in order what a process that was killed left: its mounts, its counts, what it was deleting."""
        self._settle(lambda users, is_mounted: users if is_mounted else 0)
        with self._directories:
            self._disk.clean({layer.number for layer in self._store.all()})

    def begin(self) -> None:
        """A daemon has started: whatever is mounted has one user, as Docker's own drivers see it."""
        self._settle(lambda users, is_mounted: int(is_mounted))

    def end(self) -> None:
        """The daemon is stopping: nothing stays mounted."""
        self._settle(lambda users, is_mounted: 0)

    def in_use(self) -> bool:
        """Is any layer mounted?"""
        return bool(self._mounted())

    def _settle(self, users_of: Callable[[int, bool], int]) -> None:
        """Let each layer have *users_of* (users so far, is it mounted?), and be mounted only if that is any."""
        found = self._mounted()
        for layer in self._store.all():
            place = self._disk.merged(layer.number)
            users = users_of(layer.users, str(place) in found)
            if users != layer.users:
                self._store.count(layer, users)
            if not users and str(place) in found:
                unmount(place)

    def _mounted(self) -> set[str]:
        below = f"{self._disk.top}/"
        return {mount.mountpoint for mount in mounted() if mount.mountpoint.startswith(below)}

    # --- making and taking away ---

    def create(self, name: str, parent: str, label: str, options: Mapping[str, str]) -> None:
        """Make an empty layer on *parent* ("" for none). Doing so again is no fault if nothing was done with it."""
        require_name(name)
        require_label(label)
        require_no_quota(options)
        with self._held(name):
            if self._is_untouched(name, parent):
                return
            below = self._store.get(parent) if parent else None
            with self._directories, self._store.adding(name, parent) as new:
                self._disk.create(new.number, self._disk.files(below.number) if below else None)

    def remove(self, name: str) -> None:
        """Forget the layer, mounted or not; one that is not there is no fault."""
        with self._held(name):
            try:
                layer = self._store.remove(name)
            except UnknownLayer:
                return
            unmount(self._disk.merged(layer.number))
            with self._directories:
                self._disk.discard(layer.number)

    def _is_untouched(self, name: str, parent: str) -> bool:
        """Docker asks once more if it did not hear the answer, and could not go on if that failed."""
        if not self._store.has(name):
            return False
        layer = self._store.get(name)
        fresh = (layer.parent, layer.state, layer.users) == (parent, State.NEW, 0)
        return fresh and not os.listdir(self._disk.files(layer.number))

    # --- using ---

    def get(self, name: str, label: str) -> Path:
        """Where the layer can be seen and written from now on, until `put` was called as often as this."""
        require_label(label)
        with self._held(name):
            layer, *below = self._store.chain(name)
            require_whole(layer)
            if layer.thin is not None or not below:
                return self._disk.files(layer.number)  # so that Docker finds what the layer was made of
            lowers = [directory for lower in below for directory in self._lowers(lower)]
            return self._use(layer, lowers, label)

    def put(self, name: str) -> None:
        """One user less. Putting what nobody has, or what is not there, is no fault."""
        with self._held(name):
            try:
                layer = self._store.get(name)
            except UnknownLayer:
                return
            if layer.users:
                self._store.count(layer, layer.users - 1)
            if layer.users <= 1:
                unmount(self._disk.merged(layer.number))

    def _use(self, layer: Layer, lowers: Sequence[Path], label: str = "") -> Path:
        """Let the layer have one user more, and be mounted over *lowers*."""
        place = self._disk.merged(layer.number)
        if not os.path.ismount(place):
            place.mkdir(mode=0o700, exist_ok=True)
            self._mounter.overlay(place, self._options(layer, lowers, label))
        self._store.count(layer, layer.users + 1)
        return place

    def _options(self, layer: Layer, lowers: Sequence[Path], label: str) -> list[str]:
        """How to mount the layer; it can be read only if it is part of an image."""
        own, work = self._disk.files(layer.number), self._disk.work(layer.number)
        options = [*_OPTIONS]
        if layer.thin is not None:
            lowers = [*lowers, self._disk.empty]
        elif layer.state is State.FILLED or self._store.is_parent(layer):
            lowers = [own, *lowers]
        else:
            options += [f"workdir={self._short(work)}", f"upperdir={self._short(own)}"]
        options.append("lowerdir=" + ":".join(map(self._short, lowers)))
        return [*options, f'context="{label}"'] if label else options

    def _short(self, directory: Path) -> str:
        return str(directory.relative_to(self._disk.top))

    def _lowers(self, layer: Layer) -> list[Path]:
        """The directories that overlayfs is to stack for *layer*, topmost first."""
        require_whole(layer)
        if layer.thin is None:
            return [self._disk.files(layer.number)]
        return self._linked(layer, layer.thin)

    def _linked(self, layer: Layer, image: ThinImage) -> list[Path]:
        """Short names for the directories of *image*, all of which can be read now."""
        found = self._images.directories(image)
        with self._directories:
            return self._disk.link(layer.number, found)

    # --- archives ---

    def apply(self, name: str, parent: str, archive: Readable) -> int:
        """Unpack *archive* into a new layer; bytes of its files. The layer is all there, or can't be used."""
        with self._held(name):
            layer, *below = self._store.chain(name)
            self._require_empty(layer, parent)
            layer = self._store.fill(layer, State.FILLING)
            scratch = self._disk.scratch(layer.number)
            try:
                unpack(archive, scratch, self._below(below), f"layer {name}")
                thin = self._thin(scratch) if not below else None
                if thin is not None:
                    self._linked(layer, thin)
                size = content_size(scratch)
                scratch.rename(self._disk.files(layer.number))
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
            self._store.fill(layer, State.FILLED, thin)
        if thin is not None:
            log.info("thin image: layer=%s origin=%s layers=%d", name, shown(thin.origin), len(thin.layers))
        return size

    def _require_empty(self, layer: Layer, parent: str) -> None:
        name = shown(layer.name)
        if layer.parent != parent:
            raise RefusedCall(f"layer {name} lies on {shown(layer.parent)}, not on {shown(parent)}")
        require_whole(layer)
        if layer.state is not State.NEW or layer.users or os.listdir(self._disk.files(layer.number)):
            raise RefusedCall(f"layer {name} is not empty: nothing can be unpacked there")

    def _thin(self, top: Path) -> ThinImage | None:
        """What the lowest layer of an image stands for, if it is that of a thin image."""
        if os.listdir(top) != [FILE] or not stat.S_ISREG((status := os.lstat(top / FILE)).st_mode):
            return None
        if status.st_size > _LONGEST_THIN:
            raise RefusedCall(f"{FILE}: more than {_LONGEST_THIN} bytes")
        image = ThinImage.parse((top / FILE).read_bytes())
        if not image.layers:
            raise RefusedCall(f"{FILE}: it names no layers")
        return image

    def diff(self, name: str, parent: str) -> Iterator[bytes]:
        """The archive of what is different from *parent*, piece by piece."""
        layer = require_whole(self._store.get(name))
        if layer.parent == parent:
            yield from archive_of_layer(self._disk.files(layer.number))
            return
        with self._compared(name, parent) as (new, changes):
            yield from archive_of_changes(new, changes)

    def changes(self, name: str, parent: str) -> list[Change]:
        """What is different from *parent*, in the order of paths."""
        layer, *below = self._store.chain(name)
        if layer.parent == parent:
            return layer_changes(self._disk.files(layer.number), self._below(below))
        with self._compared(name, parent) as (_, changes):
            return changes

    def diff_size(self, name: str, parent: str) -> int:
        """Bytes of the files that are different from *parent*."""
        layer = self._store.get(name)
        if layer.parent == parent:
            return content_size(self._disk.files(layer.number))
        with self._compared(name, parent) as (new, changes):
            kept = [new / os.fsdecode(change.path[1:]) for change in changes if change.kind is not ChangeKind.DELETED]
            return size_of(map(os.lstat, kept))

    @contextmanager
    def _compared(self, name: str, parent: str) -> Iterator[tuple[Path, list[Change]]]:
        """Where *name* is seen, and what is different there from what is seen of *parent* ("": of nothing)."""
        with self._seen(name) as new:
            if not parent:
                yield new, tree_changes(None, new)
            else:
                with self._seen(parent) as old:
                    changes = tree_changes(old, new)
                yield new, changes

    @contextmanager
    def _seen(self, name: str) -> Iterator[Path]:
        """Where what lies on the layer sees it. That of a thin image is seen as what it stands for."""
        with self._held(name):
            layer = self._store.get(name)
            place = self._use(layer, self._lowers(layer)) if layer.thin is not None else None
        if place is None:
            place = self.get(name, "")
        try:
            yield place
        finally:
            self.put(name)

    def _below(self, chain: Sequence[Layer]) -> Below:
        return Below([lower for layer in chain for lower in self._lowers(layer)])

    # --- telling ---

    def exists(self, name: str) -> bool:
        return self._store.has(name)

    def metadata(self, name: str) -> dict[str, str]:
        """Directories, by the names that Docker's own driver gives them."""
        layer, *below = self._store.chain(name)
        if layer.thin is not None:
            return {"ThinImage": layer.thin.origin, "LowerDir": self._lower_names([layer])}
        return {
            "LowerDir": self._lower_names(below),
            "UpperDir": str(self._disk.files(layer.number)),
            "WorkDir": str(self._disk.work(layer.number)),
            "MergedDir": str(self._disk.merged(layer.number)),
        }

    def _lower_names(self, chain: Sequence[Layer]) -> str:
        """Where the files of *chain* are, as far as is known without asking a repository."""
        places = [
            self._disk.linked(layer.number) if layer.thin else [str(self._disk.files(layer.number))] for layer in chain
        ]
        return ":".join(itertools.chain.from_iterable(places))

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        """Keep others from the layer; calls for other layers go on."""
        with self._directories:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            yield
