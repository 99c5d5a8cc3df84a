"""What a new catalog changes of the old one in whose place it comes: what the kernel must be told to forget.

Both are read once, side by side, in the order of their keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby

from ducc.catalog.reader import Catalog, Row
from ducc.cvmfs.entry import PathKey, path_key


@dataclass(slots=True)
class Changes:
    """*kept* pairs the rowids, old and new, of what is still the same thing; its attributes may be others.

    *touched* are new rowids of those whose attributes are. *names*, each with its parent's old rowid (0: the catalog's
    root), are what stands for another thing now, or for nothing, or stood for nothing before. *gone* are old rowids of
    what is no more and may be open: everything but directories.
    """

    kept: list[tuple[int, int]] = field(default_factory=list)
    touched: list[int] = field(default_factory=list)
    names: list[tuple[int, bytes]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)


def compare(old: Catalog, new: Catalog) -> Changes:
    changes = Changes()
    names: list[tuple[PathKey, bytes]] = []
    directories = {path_key(old.prefix): 0}
    for was, now in _side_by_side(old, new):
        if was and was.key in directories:
            continue  # the root: who mounts it has its row
        if was and was.entry.is_directory:
            directories[was.key] = was.rowid
        if was and now and _same_thing(was, now):
            changes.kept.append((was.rowid, now.rowid))
            if was.entry != now.entry:
                changes.touched.append(now.rowid)
        elif row := was or now:
            names.append((row.parent, row.entry.name))
            if was and not was.entry.is_directory:
                changes.gone.append(was.rowid)
    changes.names = [(directories[parent], name) for parent, name in names if parent in directories]
    return changes


def _side_by_side(old: Catalog, new: Catalog) -> Iterator[tuple[Row | None, Row | None]]:
    rows = merge(
        ((row.key, 0, row) for row in old.rows_by_key()),
        ((row.key, 1, row) for row in new.rows_by_key()),
    )
    for _, found in groupby(rows, key=lambda item: item[0]):
        pair: list[Row | None] = [None, None]
        for _, side, row in found:
            pair[side] = row
        yield pair[0], pair[1]


def _same_thing(was: Row, now: Row) -> bool:
    """Would whoever has it open notice nothing but other attributes?"""
    if was.entry.is_directory:
        return now.entry.is_directory
    return _identity(was) == _identity(now)


def _identity(row: Row) -> tuple[object, ...]:
    entry = row.entry
    kind = entry.mode >> 12
    return kind, entry.content, entry.chunks, entry.size, entry.symlink, entry.link_group, entry.linkcount, row.flags
