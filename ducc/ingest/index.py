"""The content index: which object holds a content, so that nothing known is ever compressed again.

A cache on the publisher's disk, and no more: deleting it costs time, and an entry whose object is gone is ignored.
Contents are named by the SHA-256 of their raw bytes.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

_QUESTIONS = 500  # contents asked for in one statement


class ContentIndex:
    """Raw digest → object digest, for one repository and one compressor. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the index; None keeps it in memory. One that can't be read is made anew."""
        self._lock = Lock()
        self._database = _open(path)

    def find(self, raw_digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the objects of those contents that are known."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(raw_digests), _QUESTIONS):
            some = raw_digests[start : start + _QUESTIONS]
            marks = ",".join("?" * len(some))
            question = f"SELECT raw, object FROM content WHERE raw IN ({marks})"  # noqa: S608 - question marks only
            with self._lock:
                found.update(self._database.execute(question, some).fetchall())
        return found

    def remember(self, contents: Iterable[tuple[bytes, bytes]]) -> None:
        """Note (raw digest, object digest) pairs."""
        with self._lock, self._database:
            self._database.executemany("INSERT OR REPLACE INTO content VALUES (?,?)", contents)

    def close(self) -> None:
        self._database.close()


def _open(path: Path | None) -> sqlite3.Connection:
    if path is None:
        return _prepared(":memory:")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _prepared(str(path))
    except sqlite3.DatabaseError:
        path.unlink()
        return _prepared(str(path))


def _prepared(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=60, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")  # a cache: what a power cut damages is made anew
    database.execute("CREATE TABLE IF NOT EXISTS content (raw BLOB PRIMARY KEY, object BLOB) WITHOUT ROWID")
    return database
