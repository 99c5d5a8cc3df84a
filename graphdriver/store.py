"""What is remembered of layers: one SQLite file. What a transaction wrote is on the disk when it ends.

Only the counts of users need not outlast a power cut, since no mount does: they are written without waiting.
"""

import dataclasses
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ducc.image.thin import ThinImage
from ducc.rootfs.state import open_database, transaction
from graphdriver.layers import Layer, LayerExists, RefusedCall, State, UnknownLayer, shown

_VERSION = 1
_SCHEMA = """
CREATE TABLE layers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,     -- names the directory; never used again
    name   TEXT NOT NULL UNIQUE,                  -- Docker's id
    parent INTEGER REFERENCES layers (number),    -- the layer that it lies on, if any
    state  INTEGER NOT NULL,                      -- 0 new, 1 filling, 2 filled
    users  INTEGER NOT NULL,                      -- how often it was got and not put back
    thin   BLOB                                   -- thin.json, of a layer that stands for published ones
);
CREATE INDEX layers_by_parent ON layers (parent);
"""
_SELECT = """
SELECT this.number, this.name, coalesce(below.name, ''), this.state, this.users, this.thin
  FROM layers AS this LEFT JOIN layers AS below ON below.number = this.parent
"""
_CHAIN = """
WITH RECURSIVE chain (number, parent, depth) AS (
    SELECT number, parent, 0 FROM layers WHERE name = ?
    UNION ALL
    SELECT lower.number, lower.parent, depth + 1 FROM chain JOIN layers AS lower ON lower.number = chain.parent)
"""
_BY_DEPTH = " JOIN chain ON chain.number = this.number ORDER BY chain.depth"


class Store:
    """All layers. Calls may come from any thread."""

    def __init__(self, path: Path) -> None:
        """Raises `StateUnusable`."""
        self._database = open_database(path, _SCHEMA, _VERSION)
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # --- reading ---

    def get(self, name: str) -> Layer:
        """Raises `UnknownLayer`."""
        return self.chain(name)[0]

    def chain(self, name: str) -> list[Layer]:
        """The layers *name* (first), the one it lies on, and so on to the base. Raises `UnknownLayer`."""
        if not (rows := self._rows(_CHAIN + _SELECT + _BY_DEPTH, name)):
            raise UnknownLayer(name)
        return rows

    def all(self) -> list[Layer]:
        return self._rows(f"{_SELECT} ORDER BY this.number")

    def is_parent(self, layer: Layer) -> bool:
        """Does any other layer lie on it?"""
        return bool(self._rows(f"{_SELECT} WHERE this.parent = ? LIMIT 1", layer.number))

    def has(self, name: str) -> bool:
        return bool(self._rows(f"{_SELECT} WHERE this.name = ?", name))

    # --- writing ---

    @contextmanager
    def adding(self, name: str, parent: str) -> Iterator[Layer]:
        """A new layer, which is remembered if the block ends well. Raises `LayerExists`, `UnknownLayer` (parent)."""
        with self._transaction():
            below = self.get(parent).number if parent else None
            try:
                cursor = self._database.execute(
                    "INSERT INTO layers (name, parent, state, users) VALUES (?, ?, ?, 0)", (name, below, State.NEW)
                )
            except sqlite3.IntegrityError as error:
                raise LayerExists(name) from error
            assert cursor.lastrowid is not None
            yield Layer(cursor.lastrowid, name, parent)

    def fill(self, layer: Layer, state: State, thin: ThinImage | None = None) -> Layer:
        """Let *layer* be in *state*."""
        with self._transaction():
            values = (state, thin.to_bytes() if thin else None, layer.number)
            self._database.execute("UPDATE layers SET state = ?, thin = ? WHERE number = ?", values)
        return dataclasses.replace(layer, state=state, thin=thin)

    def count(self, layer: Layer, users: int) -> None:
        """Let *layer* have that many users."""
        with self._lock:
            self._database.execute("PRAGMA synchronous = NORMAL")
            try:
                self._database.execute("UPDATE layers SET users = ? WHERE number = ?", (users, layer.number))
            finally:
                self._database.execute("PRAGMA synchronous = FULL")

    def remove(self, name: str) -> Layer:
        """Forget *name*. Raises `UnknownLayer`, `RefusedCall` (others lie on it)."""
        with self._transaction():
            layer = self.get(name)
            try:
                self._database.execute("DELETE FROM layers WHERE number = ?", (layer.number,))
            except sqlite3.IntegrityError as error:
                raise RefusedCall(f"layer {shown(name)} can't be removed while others lie on it") from error
        return layer

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything in the block, or nothing of it."""
        with self._lock, transaction(self._database):
            yield

    def _rows(self, query: str, *parameters: str | int) -> list[Layer]:
        with self._lock:
            return [_layer(row) for row in self._database.execute(query, parameters)]


def _layer(row: tuple[Any, ...]) -> Layer:
    number, name, parent, state, users, thin = row
    return Layer(number, name, parent, State(state), users, ThinImage.parse(thin) if thin else None)
