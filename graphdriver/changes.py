"""What a layer changes: as a list that people read, whatever it was made of.

A layer on its own parent is looked at where its changes are; any other two are compared entry by entry.
"""

import itertools
import os
import stat
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from graphdriver.directory import Below, Found, attributes, walk


class ChangeKind(IntEnum):
    """Numbers are those of the protocol."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Change(NamedTuple):
    path: bytes
    kind: ChangeKind


def layer_changes(top: Path, below: Below) -> list[Change]:
    """What the layer in *top* changes of *below*, in the order of paths."""
    changes: dict[bytes, Change] = {}
    for found in walk(top):
        lower = below.find(found.path)
        if found.is_whiteout:
            if lower is not None:
                changes[found.path] = Change(found.path, ChangeKind.DELETED)
        elif lower is None:
            changes[found.path] = Change(found.path, ChangeKind.ADDED)
        else:
            if not found.is_directory or not _same(found.status, lower) or found.is_opaque:
                changes[found.path] = Change(found.path, ChangeKind.MODIFIED)
            if found.is_opaque:
                changes.update(_hidden(found, below))
    return _with_directories(changes)


def tree_changes(old: Path | None, new: Path) -> list[Change]:
    """What is different in *new*, in the order of paths; without *old*, everything is added."""
    before = {found.path: found.status for found in walk(old)} if old is not None else {}
    changes: dict[bytes, Change] = {}
    for found in walk(new):
        status = before.pop(found.path, None)
        if status is None:
            changes[found.path] = Change(found.path, ChangeKind.ADDED)
        elif old is not None and not _same(found.status, old / os.fsdecode(found.path[1:]), found.attributes()):
            changes[found.path] = Change(found.path, ChangeKind.MODIFIED)
    for path in before:
        if path.rpartition(b"/")[0] not in before:
            changes[path] = Change(path, ChangeKind.DELETED)
    return _with_directories(changes)


def _hidden(directory: Found, below: Below) -> Iterator[tuple[bytes, Change]]:
    """What lower layers have in a directory that hides it, less what is there again."""
    here = set(map(os.fsencode, os.listdir(directory.handle)))
    for name in below.names(directory.path) - here:
        path = directory.path + b"/" + name
        yield path, Change(path, ChangeKind.DELETED)


def _same(status: os.stat_result, lower: Path, its_attributes: dict[str, bytes] | None = None) -> bool:
    """Is nothing different that a layer could say? Names in a directory are entries of their own."""
    other = os.lstat(lower)
    kept = ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns")
    if any(getattr(status, field) != getattr(other, field) for field in kept):
        return False
    if not stat.S_ISDIR(status.st_mode) and status.st_size != other.st_size:
        return False
    return its_attributes is None or its_attributes == attributes(lower)


def _with_directories(changes: dict[bytes, Change]) -> list[Change]:
    """With the directories on the way to a change, which Docker lists as changed, too."""
    for path in list(changes):
        parents = itertools.accumulate(path.split(b"/")[1:-1], lambda above, name: above + b"/" + name, initial=b"")
        for parent in itertools.islice(parents, 1, None):
            changes.setdefault(parent, Change(parent, ChangeKind.MODIFIED))
    return sorted(changes.values())
