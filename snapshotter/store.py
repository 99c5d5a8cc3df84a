"""What is remembered of snapshots: one SQLite file. What a transaction wrote is on the disk when it ends.

One connection for all threads; transactions are short (nothing in them waits for a repository) and come one at a time.
"""

import dataclasses
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ducc.image.digest import Digest
from ducc.rootfs.disk import Usage
from ducc.rootfs.locate import StackedLayer
from ducc.rootfs.state import open_database, transaction
from snapshotter.snapshots import Kind, Snapshot, SnapshotExists, UnknownSnapshot, WrongState, shown

_VERSION = 2
_SCHEMA = """
CREATE TABLE snapshots (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,                -- names the directory; never used again
    name       TEXT NOT NULL UNIQUE,                             -- containerd's key or name
    parent     INTEGER REFERENCES snapshots (number),            -- the snapshot that it lies on, if any
    kind       INTEGER NOT NULL,                                 -- 1 view, 2 active, 3 committed
    labels     TEXT NOT NULL,                                    -- a JSON object
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,                                 -- on the local disk; of committed snapshots
    inodes     INTEGER NOT NULL,
    layer      TEXT,                                             -- of a published layer: its digest,
    below      TEXT,                                             -- the chain id of what it lies on, if anything,
    stack      TEXT,                                             -- and that one with it; hex digits all of them
    under      TEXT                                              -- JSON: the same three of layers that are part of it
);
CREATE INDEX snapshots_by_parent ON snapshots (parent);
"""
_UPGRADE = """
ALTER TABLE snapshots ADD COLUMN below TEXT;
ALTER TABLE snapshots ADD COLUMN stack TEXT;
ALTER TABLE snapshots ADD COLUMN under TEXT;
UPDATE snapshots SET stack = substr(json_extract(labels, '$."containerd.io/snapshot.ref"'), -64)
 WHERE layer IS NOT NULL;
UPDATE snapshots SET below = (SELECT coalesce(lower.stack, substr(lower.name, -64)) FROM snapshots AS lower
                               WHERE lower.number = snapshots.parent)
 WHERE layer IS NOT NULL;
"""
_SELECT = """
SELECT this.number, this.name, coalesce(lower.name, ''), this.kind, this.labels, this.created_ns, this.updated_ns,
       this.size_bytes, this.inodes, this.layer, this.below, this.stack, this.under
  FROM snapshots AS this LEFT JOIN snapshots AS lower ON lower.number = this.parent
"""
_CHAIN = """
WITH RECURSIVE chain (number, parent, depth) AS (
    SELECT number, parent, 0 FROM snapshots WHERE name = ?
    UNION ALL
    SELECT lower.number, lower.parent, depth + 1 FROM chain JOIN snapshots AS lower ON lower.number = chain.parent)
"""
_BY_DEPTH = " JOIN chain ON chain.number = this.number ORDER BY chain.depth"


class Store:
    """All snapshots. What is read and written within `transaction` belongs together."""

    def __init__(self, path: Path) -> None:
        self._database = open_database(path, _SCHEMA, _VERSION, _UPGRADE)
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block, or nothing of it."""
        with self._lock, transaction(self._database):
            yield

    # --- reading ---

    def get(self, name: str) -> Snapshot:
        """Raises `UnknownSnapshot`."""
        rows = self._rows(f"{_SELECT} WHERE this.name = ?", name)
        if not rows:
            raise UnknownSnapshot(name)
        return rows[0]

    def chain(self, name: str) -> list[Snapshot]:
        """The snapshots *name* (first), the one it lies on, and so on to the base. Raises `UnknownSnapshot`."""
        if not (rows := self._rows(_CHAIN + _SELECT + _BY_DEPTH, name)):
            raise UnknownSnapshot(name)
        return rows

    def all(self) -> list[Snapshot]:
        return self._rows(f"{_SELECT} ORDER BY this.number")

    def published(self, parent: str, stack: Digest) -> Snapshot | None:
        """The published layer on *parent* that makes *stack* of it."""
        rows = self._rows(f"{_SELECT} WHERE coalesce(lower.name, '') = ? AND this.stack = ?", parent, stack.hex)
        return rows[0] if rows else None

    def of_stack(self, stack: Digest) -> list[Snapshot]:
        """The published layers that make *stack* of whatever they lie on."""
        return self._rows(f"{_SELECT} WHERE this.stack = ?", stack.hex)

    def has(self, name: str) -> bool:
        return bool(self._rows(f"{_SELECT} WHERE this.name = ?", name))

    # --- writing, within a transaction ---

    def add(self, new: Snapshot) -> Snapshot:
        """Remember *new*, whose number is given here. Raises `SnapshotExists`, `UnknownSnapshot` (its parent)."""
        below = self.get(new.parent).number if new.parent else None
        values = (new.name, below, *_values(new))
        try:
            cursor = self._database.execute(
                "INSERT INTO snapshots (name, parent, kind, labels, created_ns, updated_ns, size_bytes, inodes, layer,"
                " below, stack, under) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        except sqlite3.IntegrityError as error:
            raise SnapshotExists(new.name) from error
        assert cursor.lastrowid is not None
        return dataclasses.replace(new, number=cursor.lastrowid)

    def replace(self, changed: Snapshot) -> None:
        """Let the snapshot with that number be *changed*. Raises `SnapshotExists`, `UnknownSnapshot` (its parent)."""
        below = self.get(changed.parent).number if changed.parent else None
        try:
            self._database.execute(
                "UPDATE snapshots SET name = ?, parent = ?, kind = ?, labels = ?, created_ns = ?, updated_ns = ?,"
                " size_bytes = ?, inodes = ?, layer = ?, below = ?, stack = ?, under = ? WHERE number = ?",
                (changed.name, below, *_values(changed), changed.number),
            )
        except sqlite3.IntegrityError as error:
            raise SnapshotExists(changed.name) from error

    def remove(self, name: str) -> Snapshot:
        """Forget *name*. Raises `UnknownSnapshot`, `WrongState` (others lie on it)."""
        snapshot = self.get(name)
        try:
            self._database.execute("DELETE FROM snapshots WHERE number = ?", (snapshot.number,))
        except sqlite3.IntegrityError as error:
            raise WrongState(f"snapshot {shown(name)} can't be removed while others lie on it") from error
        return snapshot

    def _rows(self, query: str, *parameters: str) -> list[Snapshot]:
        with self._lock:
            return [_snapshot(row) for row in self._database.execute(query, parameters)]


def _values(snapshot: Snapshot) -> tuple[Any, ...]:
    usage, layer = snapshot.usage, snapshot.layer
    return (
        snapshot.kind, json.dumps(dict(snapshot.labels)), snapshot.created_ns, snapshot.updated_ns,
        usage.size_bytes, usage.inodes,
        *(_digits(layer) if layer else (None, None, None)), json.dumps([_digits(one) for one in snapshot.under]),
    )  # fmt: skip


def _digits(layer: StackedLayer) -> tuple[str, str | None, str]:
    return layer.digest.hex, layer.below.hex if layer.below else None, layer.stack.hex


def _layer(digest: str, below: str | None, stack: str) -> StackedLayer:
    return StackedLayer(Digest(digest), Digest(below) if below else None, Digest(stack))


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    number, name, parent, kind, labels, created_ns, updated_ns, size_bytes, inodes, *layer, under = row
    published = _layer(*layer) if layer[0] else None
    return Snapshot(
        number, name, parent, Kind(kind), json.loads(labels), created_ns, updated_ns, Usage(size_bytes, inodes),
        published, tuple(_layer(*one) for one in json.loads(under or "[]")),
    )  # fmt: skip
