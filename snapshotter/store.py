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
from ducc.rootfs.state import open_database
from snapshotter.snapshots import Kind, Snapshot, SnapshotExists, UnknownSnapshot, WrongState, shown

_VERSION = 1
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
    layer      TEXT                                              -- hex digits of the published layer, if it is one
);
CREATE INDEX snapshots_by_parent ON snapshots (parent);
"""
_SELECT = """
SELECT this.number, this.name, coalesce(below.name, ''), this.kind, this.labels, this.created_ns, this.updated_ns,
       this.size_bytes, this.inodes, this.layer
  FROM snapshots AS this LEFT JOIN snapshots AS below ON below.number = this.parent
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
        self._database = open_database(path, _SCHEMA, _VERSION)
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block, or nothing of it."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise

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

    def published(self, parent: str, label: str, value: str) -> Snapshot | None:
        """The published layer on *parent* whose label *label* says *value*."""
        path = f"$.{json.dumps(label)}"
        where = "this.layer IS NOT NULL AND coalesce(below.name, '') = ? AND json_extract(this.labels, ?) = ?"
        rows = self._rows(f"{_SELECT} WHERE {where}", parent, path, value)
        return rows[0] if rows else None

    def has(self, name: str) -> bool:
        return bool(self._rows(f"{_SELECT} WHERE this.name = ?", name))

    # --- writing, within a transaction ---

    def add(self, new: Snapshot) -> Snapshot:
        """Remember *new*, whose number is given here. Raises `SnapshotExists`, `UnknownSnapshot` (its parent)."""
        below = self.get(new.parent).number if new.parent else None
        values = (new.name, below, *_values(new))
        try:
            cursor = self._database.execute(
                "INSERT INTO snapshots (name, parent, kind, labels, created_ns, updated_ns, size_bytes, inodes, layer)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        except sqlite3.IntegrityError as error:
            raise SnapshotExists(new.name) from error
        assert cursor.lastrowid is not None
        return dataclasses.replace(new, number=cursor.lastrowid)

    def replace(self, changed: Snapshot) -> None:
        """Let the snapshot with that number be *changed*; its parent stays. Raises `SnapshotExists`."""
        try:
            self._database.execute(
                "UPDATE snapshots SET name = ?, kind = ?, labels = ?, created_ns = ?, updated_ns = ?, size_bytes = ?,"
                " inodes = ?, layer = ? WHERE number = ?",
                (changed.name, *_values(changed), changed.number),
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
    usage = snapshot.usage
    return (
        snapshot.kind, json.dumps(dict(snapshot.labels)), snapshot.created_ns, snapshot.updated_ns,
        usage.size_bytes, usage.inodes, snapshot.layer.hex if snapshot.layer else None,
    )  # fmt: skip


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    number, name, parent, kind, labels, created_ns, updated_ns, size_bytes, inodes, layer = row
    usage, digest = Usage(size_bytes, inodes), Digest(layer) if layer else None
    return Snapshot(number, name, parent, Kind(kind), json.loads(labels), created_ns, updated_ns, usage, digest)
