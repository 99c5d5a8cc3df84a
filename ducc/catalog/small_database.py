"""SQLite files that are read and written whole: what the tag database and the reflog have in common.

A file from elsewhere is read with care (no views, no triggers, no other schema); a file of ours depends on nothing but
the rows in it and their order.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from ducc.catalog.schema import PAGE_BYTES
from ducc.catalog.writer import pin_library_version

_PROPERTIES = "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));"


class NotADatabase(Exception):
    """Bytes that are not a database of the wanted schema; who reads them turns this into an error of its own."""


@contextmanager
def open_database(data: bytes, schema: Mapping[str, str]) -> Iterator[tuple[sqlite3.Connection, dict[str, str]]]:
    """Open *data*, whose properties must include *schema*; yield a connection and all properties."""
    if not data.startswith(b"SQLite format 3\0"):
        raise NotADatabase("it is not an SQLite file")
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(data)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        for kind, name in database.execute("SELECT type, name FROM sqlite_master"):
            if kind not in ("table", "index"):
                raise NotADatabase(f"it holds a {kind} ({name})")
        properties = dict(database.execute("SELECT key, value FROM properties"))
        if wrong := {key: properties.get(key) for key, value in schema.items() if properties.get(key) != value}:
            raise NotADatabase(f"its schema is another one: {wrong}")
        yield database, properties


def write_database(
    properties: Mapping[str, str], tables: str, inserts: Mapping[str, Iterable[tuple[Any, ...]]]
) -> bytes:
    """Return a fresh database: *tables* are made, then the rows of each statement in *inserts* put into them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = OFF")
        database.executescript(_PROPERTIES + tables)
        database.execute("BEGIN")
        database.executemany("INSERT INTO properties VALUES (?,?)", properties.items())
        for statement, rows in inserts.items():
            database.executemany(statement, rows)
        database.execute("COMMIT")
        return pin_library_version(database.serialize())
