"""State that an earlier version of the program has left."""

import sqlite3
from pathlib import Path

import pytest

from ducc.image.digest import Digest
from ducc.rootfs.locate import StackedLayer
from ducc.rootfs.state import StateUnusable
from snapshotter.store import Store

LAYER, OTHER, BASE, TOP = (Digest(letter * 64) for letter in "abcd")
VERSION_1 = f"""
CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, parent INTEGER REFERENCES snapshots (number),
    kind INTEGER NOT NULL, labels TEXT NOT NULL, created_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, inodes INTEGER NOT NULL, layer TEXT);
CREATE INDEX snapshots_by_parent ON snapshots (parent);
INSERT INTO snapshots VALUES
  (3, 'default/1/{BASE}', NULL, 3, '{{}}', 1, 1, 5, 5, NULL),
  (4, '{BASE}', NULL, 3, '{{"containerd.io/snapshot.ref": "{BASE}"}}', 1, 1, 0, 0, '{LAYER.hex}'),
  (5, '{TOP} on x', 3, 3, '{{"containerd.io/snapshot.ref": "{TOP}"}}', 1, 1, 0, 0, '{OTHER.hex}'),
  (6, '{TOP}', 4, 3, '{{"containerd.io/snapshot.ref": "{TOP}"}}', 1, 1, 0, 0, '{OTHER.hex}'),
  (7, 'container', 6, 2, '{{}}', 1, 1, 0, 0, NULL);
PRAGMA user_version = 1;
"""


def test_snapshots_of_version_1_are_kept_and_know_their_stacks(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as old:
        old.executescript(VERSION_1)
    old.close()
    for _ in range(2):  # it is changed once
        store = Store(tmp_path / "s")
        found = {snapshot.number: snapshot.layer for snapshot in store.all()}
        chain = [snapshot.number for snapshot in store.chain("container")]
        store.close()
        upper = StackedLayer(OTHER, BASE, TOP)
        assert found == {3: None, 4: StackedLayer(LAYER, None, BASE), 5: upper, 6: upper, 7: None}
        assert chain == [7, 6, 4]


def test_state_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(StateUnusable, match="of version 99"):
        Store(tmp_path / "s")
