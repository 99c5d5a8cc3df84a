"""What the daemon remembers of its wishes: a cache in SQLite, which others may read while it works.

Deleting it costs one slower pass. Bounded: by the wishes, `MAX_LEFT` that left, and `MAX_RUNS` runs.
"""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from ducc.errors import DuccError
from ducc.lossy import BUSY_SECONDS, LossyDatabase, Unusable

MAX_RUNS = 1000
MAX_LEFT = 10_000
MAX_REASON = 500  # characters

_VERSION = 1


class StateUnreadable(DuccError):
    """The daemon's state can't be read by somebody else; the daemon itself replaces what it can't read."""

    exit_code = 90


class Status(StrEnum):
    """What is to be said of a wish."""

    GRANTED = "granted"  # published as the registry has it
    PENDING = "pending"  # seen, and waiting for its turn
    FAILING = "failing"  # could not be asked for, or not be published


@dataclass(frozen=True, slots=True)
class ImageState:
    """One image that is wished for, or a wish that could not be made into images. Times are unix seconds.

    *since* is when the status began; *digest* what the registry named last, empty when it did not answer the last time;
    *size* the bytes of layers that were missing. *granted_at* is when it was last known to be published as the registry
    has it, 0 for never; *left_at* when it left the list, or None.
    """

    image: str
    wish: str  # the reference as it stands in the list, with its wildcard
    source: str  # the wishlist
    line: int
    status: Status
    since: int
    reason: str = ""
    kind: str = ""
    attempts: int = 0
    next_try: int = 0
    digest: str = ""
    size: int | None = None
    priority: int = 0
    granted_at: int = 0
    left_at: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One batch: what it was for, and what became of it. *started* is unix seconds."""

    started: int
    seconds: float
    lane: str
    published: int
    unchanged: int
    failed: int
    revision: int | None


_IMAGE = [field.name for field in fields(ImageState)]
_RUN = [field.name for field in fields(Run)]
_IMAGES = f"SELECT {', '.join(_IMAGE)} FROM image ORDER BY image"  # noqa: S608 - names of fields, here and below
_RUNS = f"SELECT {', '.join(_RUN)} FROM run ORDER BY rowid DESC"  # noqa: S608
_SAVE_IMAGE = f"INSERT OR REPLACE INTO image VALUES ({','.join('?' * len(_IMAGE))})"  # noqa: S608
_ADD_RUN = f"INSERT INTO run VALUES ({','.join('?' * len(_RUN))})"  # noqa: S608
_HALF_WRITTEN = sqlite3.SQLITE_READONLY_ROLLBACK


class State:
    """The state of one repository's daemon. Thread-safe."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the file; None keeps it in memory."""
        self._database = LossyDatabase(path, "state", _prepare)

    def images(self) -> list[ImageState]:
        """All that is remembered, by name."""
        return [_image(row) for row in self._database.rows(_IMAGES)]

    def runs(self, number: int = MAX_RUNS) -> list[Run]:
        """The latest *number* runs, newest first."""
        return [Run(*row) for row in self._database.rows(f"{_RUNS} LIMIT {number:d}")]

    def notes(self) -> dict[str, Any]:
        """What else was noted, by name."""
        return {name: json.loads(text) for name, text in self._database.rows("SELECT name, value FROM note")}

    def save(self, images: Iterable[ImageState]) -> None:
        """Remember these instead of what was known of them."""
        self._database.write(_SAVE_IMAGE, map(_row, images))
        left = "SELECT image FROM image WHERE left_at IS NOT NULL ORDER BY left_at DESC LIMIT -1 OFFSET"
        self._database.write(f"DELETE FROM image WHERE image IN ({left} ?)", [(MAX_LEFT,)])  # noqa: S608 - constants

    def forget(self, images: Iterable[str]) -> None:
        self._database.write("DELETE FROM image WHERE image = ?", ((image,) for image in images))

    def add_run(self, run: Run) -> None:
        self._database.write(_ADD_RUN, [astuple(run)])
        self._database.write("DELETE FROM run WHERE rowid <= (SELECT max(rowid) FROM run) - ?", [(MAX_RUNS,)])

    def note(self, name: str, value: Any) -> None:
        """Remember any JSON value under a name."""
        self._database.write("INSERT OR REPLACE INTO note VALUES (?,?)", [(name, json.dumps(value))])

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_state(path: Path) -> tuple[list[ImageState], list[Run], dict[str, Any]] | None:
    """What a daemon has written to *path* so far, read without disturbing it; None when that is nothing at all.

    Raises `StateUnreadable`.
    """
    if not path.exists():
        return None
    try:
        try:
            return _read(path, "ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != _HALF_WRITTEN:
                raise
            return _read(path, "rw")  # a daemon was killed as it wrote: this undoes it, as its next start would
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise StateUnreadable(f"{path}: the daemon's state can't be read: {error}") from error


def _read(path: Path, mode: str) -> tuple[list[ImageState], list[Run], dict[str, Any]] | None:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=BUSY_SECONDS)) as database:
        if database.execute("PRAGMA user_version").fetchone() == (0,):
            return None  # a daemon is just making it
        images, runs = database.execute(_IMAGES).fetchall(), database.execute(_RUNS).fetchall()
        notes = database.execute("SELECT name, value FROM note").fetchall()
    return [_image(row) for row in images], [Run(*row) for row in runs], {k: json.loads(v) for k, v in notes}


def _image(row: tuple[Any, ...]) -> ImageState:
    values = dict(zip(_IMAGE, row, strict=True))
    return ImageState(**{**values, "status": Status(values["status"])})


def _row(image: ImageState) -> tuple[Any, ...]:
    return tuple(getattr(image, name)[:MAX_REASON] if name == "reason" else getattr(image, name) for name in _IMAGE)


def _prepare(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise Unusable(f"it is of version {version}")
    with database:
        database.execute("BEGIN IMMEDIATE")  # whoever reads meanwhile sees all tables or none
        database.execute(f"CREATE TABLE IF NOT EXISTS image ({', '.join(_IMAGE)}, PRIMARY KEY (image))")
        database.execute(f"CREATE TABLE IF NOT EXISTS run ({', '.join(_RUN)})")
        database.execute("CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, value TEXT)")
        database.execute(f"PRAGMA user_version = {_VERSION}")
    if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
        raise Unusable("it is damaged")
    database.execute(_RUNS).fetchone()
    try:
        for row in database.execute(_IMAGES):
            _image(row)
    except (ValueError, TypeError) as error:
        raise Unusable(str(error)) from error
