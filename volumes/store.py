"""Which volumes there are, where each is mounted, and who uses it: what has to outlive the plugin.

A *use* is one of Docker's mount IDs: one start of one container. All is on the disk before Docker is answered. After a
restart of the machine no mount and no use is left, whatever stands here, so the boot is written down, too.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ducc.errors import DuccError
from ducc.rootfs.state import open_database, transaction

BOOT = Path("/proc/sys/kernel/random/boot_id")
_VERSION = 1
_SCHEMA = """
CREATE TABLE volumes (name TEXT PRIMARY KEY, created_seconds INTEGER NOT NULL, mounting INTEGER);
CREATE TABLE uses (volume TEXT NOT NULL REFERENCES volumes (name), id TEXT NOT NULL, PRIMARY KEY (volume, id));
CREATE TABLE boot (id TEXT NOT NULL);
CREATE TABLE numbers (last INTEGER NOT NULL);
INSERT INTO boot VALUES ('');
INSERT INTO numbers VALUES (0);
"""


class NoSuchVolume(DuccError):
    """Nobody has made a volume of that name."""


class Volume(NamedTuple):
    """*mounting* is the number of the directory where it is, or was, mounted; *uses* counts mount IDs."""

    name: str
    created_seconds: int
    mounting: int | None
    uses: int


class Store:
    """Rows; every method may be called by any thread."""

    def __init__(self, path: Path) -> None:
        self._database = open_database(path, _SCHEMA, _VERSION)
        self._lock = Lock()

    def close(self) -> None:
        self._database.close()

    def begin_boot(self, boot: str) -> None:
        """Forget mounts and uses unless they are of this *boot*."""
        with self._changing() as database:
            if database.execute("UPDATE boot SET id = ? WHERE id <> ?", (boot, boot)).rowcount:
                database.execute("DELETE FROM uses")
                database.execute("UPDATE volumes SET mounting = NULL")

    def add(self, name: str, now_seconds: int) -> None:
        """Make a volume, unless it is there."""
        with self._changing() as database:
            database.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?, NULL)", (name, now_seconds))

    def remove(self, name: str) -> None:
        """Forget a volume and all of its uses."""
        with self._changing() as database:
            database.execute("DELETE FROM uses WHERE volume = ?", (name,))
            database.execute("DELETE FROM volumes WHERE name = ?", (name,))

    def volume(self, name: str) -> Volume:
        """Raises `NoSuchVolume`."""
        found = [volume for volume in self.volumes() if volume.name == name]
        if not found:
            raise NoSuchVolume(f"there is no volume {name[:100]!a}")
        return found[0]

    def volumes(self) -> list[Volume]:
        """All, by name."""
        query = (
            "SELECT name, created_seconds, mounting, (SELECT count(*) FROM uses WHERE volume = name)"
            " FROM volumes ORDER BY name"
        )
        with self._lock:
            return [Volume(*row) for row in self._database.execute(query)]

    def use(self, name: str, use: str) -> None:
        """Note a use; again is the same use."""
        with self._changing() as database:
            database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (name, use))

    def end_use(self, name: str, use: str) -> None:
        """Forget a use; one that is not known has ended before."""
        with self._changing() as database:
            database.execute("DELETE FROM uses WHERE volume = ? AND id = ?", (name, use))

    def begin_mounting(self, name: str) -> int:
        """A number that no mounting has had, noted as where *name* is mounted."""
        with self._changing() as database:
            database.execute("UPDATE numbers SET last = last + 1")
            database.execute("UPDATE volumes SET mounting = (SELECT last FROM numbers) WHERE name = ?", (name,))
            (number,) = database.execute("SELECT last FROM numbers").fetchone()
            return int(number)

    def end_mounting(self, name: str) -> None:
        with self._changing() as database:
            database.execute("UPDATE volumes SET mounting = NULL WHERE name = ?", (name,))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._database):
            yield self._database
