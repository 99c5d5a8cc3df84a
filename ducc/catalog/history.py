"""The tag database: names for root catalogs, so that they are kept and can be found again (suffix H).

A value: read whole, changed, written whole. Equal tags give equal bytes, whatever happened in between. Source:
format, "Tag database"; branches, which only stock publishers make, are kept as they are.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from ducc.catalog.small_database import NotADatabase, open_database, write_database
from ducc.cvmfs.objectname import MalformedObjectName, parse_hash
from ducc.errors import DuccError

SCHEMA = {"schema": "1.0", "schema_revision": "3"}
TABLES = """
CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER,
  CONSTRAINT pk_branch PRIMARY KEY (branch), FOREIGN KEY (parent) REFERENCES branches (branch),
  CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)));
CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER, description TEXT,
  size INTEGER, branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name), FOREIGN KEY (branch) REFERENCES branches (branch));
CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash));
"""


class BadHistory(DuccError):
    """A tag database does not hold what it must hold."""

    exit_code = 62

    def __init__(self, reason: str) -> None:
        super().__init__(f"the tag database can't be used: {reason}")


class Tag(NamedTuple):
    """*hash* (20 bytes) and *size* (uncompressed bytes) are of the root catalog; *timestamp* is unix seconds."""

    name: str
    hash: bytes
    revision: int
    timestamp: int
    description: str = ""
    size: int = 0
    branch: str = ""


class Branch(NamedTuple):
    """A line of revisions beside the trunk, whose name is empty and who alone has no parent."""

    name: str
    parent: str | None
    initial_revision: int


TRUNK = Branch("", None, 0)


class History:
    """All tags of a repository, by name."""

    def __init__(self, fqrn: str, tags: Iterable[Tag] = (), branches: Iterable[Branch] = (TRUNK,)) -> None:
        self.fqrn = fqrn
        self.branches = tuple(branches)
        self._tags = {tag.name: tag for tag in tags}

    @classmethod
    def new(cls, fqrn: str) -> "History":
        return cls(fqrn)

    @classmethod
    def from_bytes(cls, data: bytes) -> "History":
        """Read a database (uncompressed)."""
        try:
            with open_database(data, SCHEMA) as (database, properties):
                branches = database.execute("SELECT branch, parent, initial_revision FROM branches ORDER BY rowid")
                rows = database.execute(
                    "SELECT name, hash, revision, timestamp, description, size, branch FROM tags ORDER BY name"
                )
                tags = [Tag(name, parse_hash(hash_text), *rest) for name, hash_text, *rest in rows]
                return cls(properties.get("fqrn", ""), tags, [Branch(*row) for row in branches])
        except (NotADatabase, MalformedObjectName, TypeError, sqlite3.DatabaseError) as error:
            raise BadHistory(str(error)) from error

    def tags(self) -> list[Tag]:
        """All tags, sorted by name."""
        return sorted(self._tags.values())

    def get(self, name: str) -> Tag | None:
        return self._tags.get(name)

    def set_tag(self, tag: Tag) -> None:
        """Add *tag*, or move the one of its name."""
        self._tags[tag.name] = tag

    def remove(self, name: str) -> bool:
        """Forget a tag; False when there is none of that name."""
        return self._tags.pop(name, None) is not None

    def to_bytes(self) -> bytes:
        """The database, uncompressed."""
        rows = ((tag.name, tag.hash.hex(), *tag[2:4], 0, *tag[4:]) for tag in self.tags())
        inserts = {
            "INSERT INTO branches VALUES (?,?,?)": self.branches,
            "INSERT INTO tags VALUES (?,?,?,?,?,?,?,?)": rows,
        }
        return write_database({**SCHEMA, "fqrn": self.fqrn}, TABLES, inserts)
