"""What a program that makes root file systems remembers: SQLite in a directory that only one process works on."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ducc.errors import DuccError


class StateUnusable(DuccError):
    """A program's own files can't be relied on. They are never made anew over what is there."""

    exit_code = 110


def open_database(path: Path, schema: str, version: int, upgrade: str = "") -> sqlite3.Connection:
    """One connection for all threads of the program; what a transaction wrote is on the disk when it ends.

    A new file gets *schema*, and *version* is written down; one of the version before is changed by *upgrade*, if
    there is one. Raises `StateUnusable`.
    """
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")
        _require_sound(database)
        (found,) = database.execute("PRAGMA user_version").fetchone()
        change = schema if found == 0 else upgrade if found == version - 1 else ""
        if change:
            database.executescript(f"BEGIN; {change} PRAGMA user_version = {version}; COMMIT")
        elif found != version:
            raise sqlite3.DatabaseError(f"is of version {found}, this program reads {version}")
    except sqlite3.Error as error:
        raise StateUnusable(f"{path}: {error}; repair it, or remove all of {path.parent} and pull anew") from error
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Everything in the block, or nothing of it. Other threads must be kept away meanwhile."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Hold *root*, so that no second process changes what is there. Raises `StateUnusable`."""
    with (root / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateUnusable(f"{root}: another process works there") from None
        yield


def _require_sound(database: sqlite3.Connection) -> None:
    (damage,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)
