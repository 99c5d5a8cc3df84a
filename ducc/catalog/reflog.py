"""The reflog: every root object ever published and not yet collected (file `.cvmfsreflog`, uncompressed).

Garbage collection knows from nowhere else what may be deleted, so a root is listed before a manifest names it. Nested
catalogs are never listed. A value, as the tag database is. Source: format, "Reflog".
"""

import sqlite3
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from ducc.catalog.small_database import NotADatabase, open_database, write_database
from ducc.cvmfs.objectname import MalformedObjectName, parse_hash
from ducc.errors import DuccError

SCHEMA = {"schema": "1.0", "schema_revision": "0"}
TABLES = """
CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash));
"""


class BadReflog(DuccError):
    """A reflog does not hold what it must hold."""

    exit_code = 63

    def __init__(self, reason: str) -> None:
        super().__init__(f"the reflog can't be used: {reason}")


class RefKind(IntEnum):
    """What a listed object is."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    METAINFO = 3


class Ref(NamedTuple):
    """*digest* is 20 bytes, *timestamp* (unix seconds) says when it was listed."""

    digest: bytes
    kind: RefKind
    timestamp: int


class Reflog:
    """All root objects of a repository, by hash."""

    def __init__(self, fqrn: str, refs: Iterable[Ref] = ()) -> None:
        self.fqrn = fqrn
        self._refs = {ref.digest: ref for ref in refs}

    @classmethod
    def new(cls, fqrn: str) -> "Reflog":
        return cls(fqrn)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Reflog":
        """Read the file."""
        try:
            with open_database(data, SCHEMA) as (database, properties):
                rows = database.execute("SELECT hash, type, timestamp FROM refs")
                refs = [Ref(parse_hash(text), RefKind(kind), timestamp) for text, kind, timestamp in rows]
                return cls(properties.get("fqrn", ""), refs)
        except (NotADatabase, MalformedObjectName, TypeError, ValueError, sqlite3.DatabaseError) as error:
            raise BadReflog(str(error)) from error

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._refs

    def refs(self) -> list[Ref]:
        """All that is listed, sorted by hash."""
        return sorted(self._refs.values())

    def add(self, digest: bytes, kind: RefKind, timestamp: int) -> None:
        """List an object; one that is listed keeps the time at which it was."""
        self._refs.setdefault(digest, Ref(digest, kind, timestamp))

    def remove(self, digest: bytes) -> bool:
        """Take an object off the list, after it was deleted; False when it was not listed."""
        return self._refs.pop(digest, None) is not None

    def to_bytes(self) -> bytes:
        """The file; its plain SHA-1 goes into the manifest (`Manifest.reflog`)."""
        rows = ((ref.digest.hex(), int(ref.kind), ref.timestamp) for ref in self.refs())
        return write_database({**SCHEMA, "fqrn": self.fqrn}, TABLES, {"INSERT INTO refs VALUES (?,?,?)": rows})
