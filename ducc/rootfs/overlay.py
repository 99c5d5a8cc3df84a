"""How directories are put over one another: the arguments of mount(2). Pure: nothing is opened or mounted here.

Source: the kernel's overlayfs documentation. Options are text with `,` and `:` between values, so a path that holds one
of them is refused before any option is made of it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ducc.errors import BadInput
from ducc.rootfs.mounts import MountEntry

MOST_LOWERS = 500  # what the kernel stacks

_UNSAFE = re.compile(r'[,:\\"\s\x00-\x1f\x7f]')


class UnmountablePath(BadInput):
    """A path can't stand in mount options."""


@dataclass(frozen=True, slots=True)
class Mount:
    """The arguments of mount(2), less the place, which the caller chooses."""

    type: str
    source: str
    options: tuple[str, ...]


def require_mountable(path: Path) -> Path:
    """*path*, if it is absolute and no part of it would be read as an option."""
    if not path.is_absolute() or ".." in path.parts or _UNSAFE.search(str(path)):
        raise UnmountablePath(f"{str(path)!r} can't be mounted: wanted an absolute path without blanks, and , : \\")
    return path


def bind(directory: Path, *, writable: bool) -> Mount:
    """The directory as it is."""
    return Mount("bind", str(require_mountable(directory)), ("rw" if writable else "ro", "rbind"))


def overlay(lowers: Sequence[Path], upper: Path | None = None, work: Path | None = None) -> Mount:
    """*lowers*, topmost first, with changes going to *upper*; read-only, and of two lowers or more, without it.

    The index of hard links is off: engines mount one lower directory in many places.
    """
    options = ["index=off"]
    if upper is not None and work is not None:
        options += [f"workdir={require_mountable(work)}", f"upperdir={require_mountable(upper)}"]
    options.append("lowerdir=" + ":".join(str(require_mountable(lower)) for lower in lowers))
    return Mount("overlay", "overlay", tuple(options))


def directories_in_use(mounts: Iterable[MountEntry], below: Path) -> set[str]:
    """Names of the directories directly below *below* that some overlay is made of, or that something is mounted in.

    An engine may have said its lowers relative to *below*: such count where an upper is ours, or there is none.
    """
    used: set[str] = set()
    for mount in mounts:
        used |= _named([mount.mountpoint], below)
        if mount.type == "overlay":
            used |= _of_overlay(mount.options, below)
    return used


def _of_overlay(options: Sequence[str], below: Path) -> set[str]:
    values = dict(option.partition("=")[::2] for option in options)
    uppers = [values[name] for name in ("upperdir", "workdir") if name in values]
    lowers = [lower for lower in values.get("lowerdir", "").split(":") if lower]
    ours = _named(uppers + lowers, below)
    if ours or not uppers:
        ours |= _named([str(below / lower) for lower in lowers if not lower.startswith("/")], below)
    return ours


def _named(paths: Iterable[str], below: Path) -> set[str]:
    top = f"{below}/"
    return {path[len(top) :].split("/")[0] for path in paths if path.startswith(top)}
