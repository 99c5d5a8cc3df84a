"""The content index: which object holds a content, so that nothing known is ever compressed again.

A cache on the publisher's disk, and no more: deleting it costs time, an entry whose object is gone is ignored, and no
damage to the file, nor a full disk, ever costs a conversion.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from blake3 import blake3

from ducc.cvmfs.objectname import DIGEST_BYTES
from ducc.lossy import LossyDatabase

_BLAKE3_FROM = 16 << 10  # bytes: from here on it is up to four times as fast as SHA-256, below it is slower
_QUESTIONS = 500  # contents asked for in one statement


def raw_digest(content: bytes | memoryview) -> bytes:
    """Name a content by its raw bytes, for the index: BLAKE3 of big ones, SHA-256 of small ones."""
    return (blake3 if len(content) >= _BLAKE3_FROM else hashlib.sha256)(content).digest()


class ContentIndex:
    """Raw digest → object digest, for one repository and one compressor. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the index; None keeps it in memory. One that can't be read is made anew."""
        self._database = LossyDatabase(path, "content index", _prepare)

    def find(self, raw_digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the objects of those contents that are known."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(raw_digests), _QUESTIONS):
            some = raw_digests[start : start + _QUESTIONS]
            marks = ",".join("?" * len(some))
            question = f"SELECT raw, object FROM content WHERE raw IN ({marks})"  # noqa: S608 - question marks only
            rows = self._database.rows(question, some)
            found.update(row for row in rows if isinstance(row[1], bytes) and len(row[1]) == DIGEST_BYTES)
        return found

    def remember(self, contents: Iterable[tuple[bytes, bytes]]) -> None:
        """Note (raw digest, object digest) pairs."""
        self._database.write("INSERT OR REPLACE INTO content VALUES (?,?)", contents)

    def close(self) -> None:
        self._database.close()


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE IF NOT EXISTS content (raw BLOB PRIMARY KEY, object BLOB) WITHOUT ROWID")
    database.execute("SELECT raw, object FROM content LIMIT 1").fetchall()
