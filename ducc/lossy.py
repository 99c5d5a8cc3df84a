"""A SQLite file that may be lost at any moment: a cache, whose damage never costs more than time.

A file that is damaged, or another version's, is replaced by an empty one with a warning; where none can be written,
memory must do. A full disk, or a reader who holds on for long, costs what was to be noted just then.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

log = logging.getLogger(__name__)

BUSY_SECONDS = 10  # for another process that writes

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY}
_BESIDE = ("", "-journal", "-wal", "-shm")


class Unusable(sqlite3.DatabaseError):
    """A database, but not one that this version can use."""


class LossyDatabase:
    """One such file. Thread-safe."""

    def __init__(self, path: Path | None, name: str, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """Open or make the file; None keeps it in memory.

        *name* is what the log calls it. *prepare* makes the tables that are missing, and raises
        `sqlite3.DatabaseError` where it finds others.
        """
        self._path = path
        self._name = name
        self._prepare = prepare
        self._lock = Lock()
        self._database = self._open()

    def rows(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All answers, or none where the file turned out to be damaged."""
        with self._lock:
            try:
                return self._database.execute(question, values).fetchall()
            except sqlite3.DatabaseError as error:
                self._recover(error)
                return []

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Carry the statement out for each row, all of it or nothing."""
        with self._lock:
            try:
                with self._database:
                    self._database.executemany(statement, rows)
            except sqlite3.DatabaseError as error:
                self._recover(error)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            return self._connect(":memory:")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._connect(str(self._path))
        except (sqlite3.DatabaseError, OSError) as error:
            return self._another(error)

    def _recover(self, error: sqlite3.DatabaseError) -> None:
        if not _is_damage(error):
            log.warning("%s not written: path=%s reason=%s", self._name, self._path, error)
            return
        with suppress(sqlite3.Error):
            self._database.close()
        self._database = self._another(error)

    def _another(self, error: Exception) -> sqlite3.Connection:
        log.warning("%s not usable, starting with an empty one: path=%s reason=%s", self._name, self._path, error)
        if self._path is not None and _is_damage(error):
            with suppress(sqlite3.DatabaseError, OSError):
                for suffix in _BESIDE:
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                return self._connect(str(self._path))
        return self._connect(":memory:")

    def _connect(self, path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
        try:
            database.execute("PRAGMA synchronous = OFF")  # what a power cut damages is made anew
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database


def _is_damage(error: Exception) -> bool:
    return isinstance(error, Unusable) or getattr(error, "sqlite_errorcode", -1) & 0xFF in _DAMAGED
