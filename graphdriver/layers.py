"""Layers as Docker's graph drivers know them, and what is refused. Pure: no I/O, no clock.

A layer has a name that Docker chose and at most one parent. It is *new* until an archive is unpacked into it; while
that goes on it is *filling*, and if that was cut off it stays so for ever, since Docker may send the rest of an archive
as if it were a whole one. A layer with a `thin.json` and nothing else holds no files: it stands for published layers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ducc.errors import DuccError
from ducc.image.thin import ThinImage

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,254}")
_LABEL = re.compile(r"[A-Za-z0-9_.:,-]{1,255}")
_OPTIONS = {"cvmfsmountmethod": "external"}  # what older configurations say, and mean what is done anyway


class RefusedCall(DuccError):
    """A call that makes no sense, or that this driver can't do."""


class UnknownLayer(RefusedCall):
    """There is no layer with that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"layer {shown(name)} does not exist")


class LayerExists(RefusedCall):
    """The name is taken by another layer."""

    def __init__(self, name: str) -> None:
        super().__init__(f"layer {shown(name)} already exists")


class State(IntEnum):
    """What became of a layer; the numbers are those of the database."""

    NEW = 0
    FILLING = 1
    FILLED = 2


@dataclass(frozen=True, slots=True)
class Layer:
    """*number* names its directory, and is never used again. *users* counts those who got it mounted and keep it."""

    number: int
    name: str
    parent: str  # "" for none
    state: State = State.NEW
    users: int = 0
    thin: ThinImage | None = None


def require_name(name: str) -> str:
    """*name*, if a layer can be called that."""
    if not _NAME.fullmatch(name):
        raise RefusedCall(f"{shown(name)} can't be the name of a layer")
    return name


def require_label(label: str) -> str:
    """*label*, if it is a security context (or empty); it becomes part of mount options."""
    if label and not _LABEL.fullmatch(label):
        raise RefusedCall(f"mount label {shown(label)} is not a security context")
    return label


def require_no_quota(options: Mapping[str, str]) -> None:
    """Refuse `--storage-opt` of a container."""
    for name in sorted(options):
        if name.lower() == "size":
            raise RefusedCall("--storage-opt size: ducc sets no quotas; leave the option out")
        raise RefusedCall(f"--storage-opt {shown(name)}: there is no such option with ducc")


def require_options(options: Sequence[str]) -> None:
    """Refuse `--storage-opt` of the daemon, less what means nothing else than what is done."""
    for option in options:
        name, _, value = option.partition("=")
        if _OPTIONS.get(name.rpartition(".")[2].lower()) != value.lower():
            raise RefusedCall(f"storage option {shown(option)}: ducc takes none from Docker, see its own configuration")


def require_whole(layer: Layer) -> Layer:
    """*layer*, unless an archive was cut off while it was unpacked there."""
    if layer.state is State.FILLING:
        raise RefusedCall(f"layer {shown(layer.name)} was cut off while it was written: remove it and pull again")
    return layer


def shown(text: str) -> str:
    """Text of others in one line of ours."""
    return ascii(text[:200])
