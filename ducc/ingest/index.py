"""The content index: which object holds a content, so that nothing known is ever compressed again.

A cache on the publisher's disk, and no more: deleting it costs time, an entry whose object is gone is ignored, and no
damage to the file, nor a full disk, ever costs a conversion.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from blake3 import blake3

from ducc.cvmfs.objectname import DIGEST_BYTES

log = logging.getLogger(__name__)

_BLAKE3_FROM = 16 << 10  # bytes: from here on it is up to four times as fast as SHA-256, below it is slower
_QUESTIONS = 500  # contents asked for in one statement
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}  # the last: not our tables


def raw_digest(content: bytes | memoryview) -> bytes:
    """Name a content by its raw bytes, for the index: BLAKE3 of big ones, SHA-256 of small ones."""
    return (blake3 if len(content) >= _BLAKE3_FROM else hashlib.sha256)(content).digest()


class ContentIndex:
    """Raw digest → object digest, for one repository and one compressor. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the index; None keeps it in memory. One that can't be read is made anew."""
        self._path = path
        self._lock = Lock()
        self._database = self._open()

    def find(self, raw_digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the objects of those contents that are known."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(raw_digests), _QUESTIONS):
            some = raw_digests[start : start + _QUESTIONS]
            marks = ",".join("?" * len(some))
            question = f"SELECT raw, object FROM content WHERE raw IN ({marks})"  # noqa: S608 - question marks only
            with self._lock:
                try:
                    rows = self._database.execute(question, some).fetchall()
                except sqlite3.DatabaseError as error:
                    self._replace(error)
                    return {}
            found.update(row for row in rows if isinstance(row[1], bytes) and len(row[1]) == DIGEST_BYTES)
        return found

    def remember(self, contents: Iterable[tuple[bytes, bytes]]) -> None:
        """Note (raw digest, object digest) pairs."""
        with self._lock:
            try:
                with self._database:
                    self._database.executemany("INSERT OR REPLACE INTO content VALUES (?,?)", contents)
            except sqlite3.DatabaseError as error:
                self._replace(error)

    def close(self) -> None:
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            return _prepared(":memory:")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return _prepared(str(self._path))
        except (sqlite3.DatabaseError, OSError) as error:
            return self._another(error)

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        with suppress(sqlite3.Error):
            self._database.close()
        self._database = self._another(error)

    def _another(self, error: sqlite3.DatabaseError | OSError) -> sqlite3.Connection:
        """A new file in place of a damaged one; where a file can't be had (a full disk, no right), memory."""
        log.warning("content index not usable, starting with an empty one: path=%s reason=%s", self._path, error)
        if self._path is not None and _is_damage(error):
            with suppress(sqlite3.DatabaseError, OSError):
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                return _prepared(str(self._path))
        return _prepared(":memory:")


def _is_damage(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", -1) & 0xFF in _DAMAGED


def _prepared(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=60, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # a cache: what a power cut damages is made anew
        database.execute("CREATE TABLE IF NOT EXISTS content (raw BLOB PRIMARY KEY, object BLOB) WITHOUT ROWID")
        database.execute("SELECT raw, object FROM content LIMIT 1").fetchall()
    except BaseException:
        database.close()
        raise
    return database
