"""Snapshots: what they are, what becomes of them, and what is refused. Pure: no I/O, no clock.

A snapshot is *active* (written to), a *view* (read), or *committed* (never changes again, and others lie on it). Only
an active one can be committed, and only on committed ones can another lie. Source: the contract of containerd's
snapshotters, as its own overlay snapshotter keeps it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from ducc.errors import DuccError
from ducc.rootfs.disk import NOTHING_USED, Usage
from ducc.rootfs.locate import StackedLayer

BELOW = "containerd.io/snapshot/parent-chain-id"
"""What a layer is to lie on that is prepared without a parent, to be unpacked beside others (containerd 2.3)."""

_LONGEST_NAME = 4096
_LONGEST_LABEL = 4096  # name and value together
_MOST_LABELS = 1000
_LABELS = "labels"


class SnapshotError(DuccError):
    """A call that is refused."""


class UnknownSnapshot(SnapshotError):
    """There is no snapshot with that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"snapshot {shown(name)} does not exist")


class SnapshotExists(SnapshotError):
    """The name is taken."""

    def __init__(self, name: str) -> None:
        super().__init__(f"snapshot {shown(name)} already exists")


class WrongState(SnapshotError):
    """The snapshot is there, and in no state for this."""


class InvalidRequest(SnapshotError):
    """What is asked for makes no sense for any snapshot."""


class Kind(IntEnum):
    """Numbers are those of the wire."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """*number* names its directory, and is never used again. *layer*: the published layer that it is, if it is one.

    *under* are published layers below it that containerd does not know as its parents, topmost first.
    """

    number: int
    name: str
    parent: str  # "" for none
    kind: Kind
    labels: Mapping[str, str]
    created_ns: int
    updated_ns: int
    usage: Usage = NOTHING_USED
    layer: StackedLayer | None = None
    under: tuple[StackedLayer, ...] = ()


def require_name(name: str) -> str:
    """*name*, if a snapshot can be called that."""
    if not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise InvalidRequest(f"a snapshot's name has 1 to {_LONGEST_NAME} bytes, not {len(name.encode())}")
    return name


def require_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """*labels*, if they are as containerd itself would take them; one that says nothing is none."""
    if len(labels) > _MOST_LABELS:
        raise InvalidRequest(f"{len(labels)} labels are too many for one snapshot: {_MOST_LABELS} at most")
    for name, value in labels.items():
        if len(name.encode()) + len(value.encode()) > _LONGEST_LABEL:
            raise InvalidRequest(f"label {shown(name)} is too long: {_LONGEST_LABEL} bytes with its value at most")
    return {name: value for name, value in labels.items() if value}


def require_parent(parent: Snapshot) -> None:
    """Only on committed snapshots can another lie."""
    if parent.kind != Kind.COMMITTED:
        raise InvalidRequest(f"snapshot {shown(parent.name)} is not committed, so nothing can lie on it")


def require_placed(active: Snapshot, parent: str) -> None:
    """*parent* may be said only now if it was said before what the files were to be unpacked on.

    Else a deletion was carried out on nothing (containerd 2.2), and what it deletes would come back.
    """
    if not active.parent and BELOW not in active.labels:
        raise InvalidRequest(
            f"snapshot {shown(active.name)} can't come to lie on {shown(parent)}: nothing said so before it was"
            " unpacked, so its deletions are lost (leave the capability `rebase` out for containerd before 2.3)"
        )


def committed(
    active: Snapshot, name: str, parent: str, labels: Mapping[str, str], usage: Usage, now_ns: int
) -> Snapshot:
    """What *active* becomes. Its labels are not inherited; *parent* is given to one that was made without."""
    if parent and active.parent not in ("", parent):
        raise InvalidRequest(f"snapshot {shown(active.name)} lies on another than {shown(parent)} already")
    if active.kind != Kind.ACTIVE:
        raise WrongState(f"snapshot {shown(active.name)} is not active, so it can't be committed")
    return replace(
        active, name=name, parent=parent or active.parent, kind=Kind.COMMITTED, labels=labels, usage=usage,
        created_ns=now_ns, updated_ns=now_ns,
    )  # fmt: skip


def relabelled(snapshot: Snapshot, labels: Mapping[str, str], paths: Iterable[str], now_ns: int) -> Snapshot:
    """*snapshot* with other labels: all of them, or those that *paths* (`labels`, `labels.<name>`) name."""
    changed = dict(snapshot.labels)
    for path in list(paths) or [_LABELS]:
        if path == _LABELS:
            changed = dict(labels)
        elif path.startswith(f"{_LABELS}."):
            name = path.removeprefix(f"{_LABELS}.")
            changed[name] = labels.get(name, "")
        else:
            raise InvalidRequest(f"of snapshot {shown(snapshot.name)} only labels can be changed, not {shown(path)}")
    return replace(snapshot, labels=require_labels(changed), updated_ns=now_ns)


def shown(text: str) -> str:
    """Text of others in one line of ours."""
    return ascii(text[:200])
