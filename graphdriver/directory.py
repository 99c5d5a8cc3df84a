"""A layer's directory as overlayfs has it, read without ever following a symbolic link.

A whiteout is a character device 0:0, and a directory that hides what is below it says so by an attribute. A container
may be changing what is read here, so names are looked up below open directories only. Source: the kernel's overlayfs
documentation.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

OPAQUE = "trusted.overlay.opaque"
OVERLAY_ATTRIBUTES = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True, slots=True)
class Found:
    """One entry: *path* is like `b"/a/b"`, and *parent* the open directory that it is in, while it is looked at."""

    path: bytes
    name: bytes
    parent: int
    status: os.stat_result

    @property
    def handle(self) -> str:
        """A path by which it can be reached now; for calls that do not follow a link there."""
        return f"/proc/self/fd/{self.parent}/{os.fsdecode(self.name)}"

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_whiteout(self) -> bool:
        return is_whiteout(self.status)

    @property
    def is_opaque(self) -> bool:
        return self.is_directory and is_opaque(self.handle)

    def attributes(self) -> dict[str, bytes]:
        """Extended attributes, less overlayfs's own; none where the file system has none."""
        return attributes(self.handle)


def walk(top: Path) -> Iterator[Found]:
    """Every entry below *top*, a directory before what is in it, in the order of names; less what goes meanwhile."""
    opened = [(b"", os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]
    pending = [_names(opened[0][1])]
    try:
        while pending:
            path, parent = opened[-1]
            if not pending[-1]:
                pending.pop()
                os.close(opened.pop()[1])
                continue
            name = pending[-1].pop()
            found = _look(path, name, parent)
            if found is None:
                continue
            yield found
            if found.is_directory and (below := _enter(found)) is not None:
                opened.append((found.path, below))
                pending.append(_names(below))
    finally:
        for _, descriptor in opened:
            os.close(descriptor)


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: str | Path) -> bool:
    """Does the directory *path* hide what is below it?"""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def attributes(path: str | Path) -> dict[str, bytes]:
    """Extended attributes of *path* that a container can see; none where the file system has none."""
    try:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith(OVERLAY_ATTRIBUTES)]
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}
    except OSError:
        return {}


def content_size(top: Path) -> int:
    """Bytes of all that is below *top*: see `size_of`."""
    return size_of(found.status for found in walk(top))


def size_of(entries: Iterable[os.stat_result]) -> int:
    """Bytes of *entries*, less directories; a file that has several names counts once."""
    sizes = {(status.st_dev, status.st_ino): status.st_size for status in entries if not stat.S_ISDIR(status.st_mode)}
    return sum(sizes.values())


class Below:
    """What layers show together: *layers* are directories, topmost first, each over the next."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = layers

    def find(self, path: bytes) -> Path | None:
        """Where the entry at *path* is that is seen, if one is."""
        for layer in self._layers:
            found, hides = _in_layer(layer, path)
            if found is not None or hides:
                return found
        return None

    def names(self, path: bytes) -> set[bytes]:
        """What the directory at *path* is seen to hold; nothing if there is none."""
        seen: set[bytes] = set()
        hidden: set[bytes] = set()
        for layer in self._layers:
            found, hides = _in_layer(layer, path)
            if found is not None:
                if found.is_symlink() or not found.is_dir():
                    break
                with os.scandir(os.fsencode(found)) as entries:
                    here = {entry.name: is_whiteout(entry.stat(follow_symlinks=False)) for entry in entries}
                seen |= {name for name, gone in here.items() if not gone} - hidden
                hidden |= {name for name, gone in here.items() if gone}
                hides = hides or is_opaque(found)
            if hides:
                break
        return seen


def _in_layer(layer: Path, path: bytes) -> tuple[Path | None, bool]:
    """Where *layer* itself has *path*, and whether it hides what lower layers have there."""
    here, hides = layer, False
    names = path.split(b"/")[1:]
    for depth, name in enumerate(names, start=1):
        hides = hides or is_opaque(here)
        here = here / os.fsdecode(name)
        try:
            status = os.lstat(here)
        except FileNotFoundError:
            return None, hides
        if is_whiteout(status) or (depth < len(names) and not stat.S_ISDIR(status.st_mode)):
            return None, True
    return here, hides


def _names(directory: int) -> list[bytes]:
    """In reverse, so that the first one is the last."""
    return sorted(map(os.fsencode, os.listdir(directory)), reverse=True)


def _look(path: bytes, name: bytes, parent: int) -> Found | None:
    try:
        return Found(path + b"/" + name, name, parent, os.lstat(name, dir_fd=parent))
    except FileNotFoundError:
        return None


def _enter(found: Found) -> int | None:
    try:
        return os.open(found.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.parent)
    except (FileNotFoundError, NotADirectoryError):
        return None
