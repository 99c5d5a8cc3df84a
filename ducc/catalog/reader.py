"""One catalog, opened for reading: rows by path, listings of directories, and where other catalogs begin.

The bytes are verified before they come here (an object's hash is checked when it is fetched), so a fault found in
here is the publisher's: `BadCatalog`. No SQL of the file is ever run: it must not contain views or triggers.
"""

import sqlite3
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ducc.catalog.schema import COLUMNS, CatalogRef, Counters
from ducc.cvmfs.entry import ROOT_KEY, ZLIB, Chunk, Entry, Flags, PathKey, compression_of, path_key
from ducc.cvmfs.objectname import parse_hash
from ducc.errors import DuccError


class BadCatalog(DuccError):
    """A catalog whose hash is right does not hold what a catalog must hold."""

    exit_code = 66

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"catalog {name}: {reason}")


class Mount(Enum):
    """Does a row belong to this catalog alone, or do two catalogs meet at it?"""

    NONE = 0
    NESTED = int(Flags.NESTED_MOUNTPOINT)  # the subtree is another catalog of the same coordinates
    BIND = int(Flags.BIND_MOUNTPOINT)  # the subtree is a tree with coordinates of its own
    ROOT = int(Flags.NESTED_ROOT)  # this is the root row of a nested catalog


class Row(NamedTuple):
    """An entry and what a reader needs to go on from it. *rowid* gives inodes, *key* finds children and chunks."""

    entry: Entry
    mount: Mount
    key: PathKey
    parent: PathKey
    rowid: int
    flags: int


_MOUNTS = {mount.value: mount for mount in Mount}
_MOUNT_BITS = int(Flags.NESTED_MOUNTPOINT | Flags.BIND_MOUNTPOINT | Flags.NESTED_ROOT)
# Plain numbers: an operation on an IntFlag takes as long as all the rest of reading a row.
_CHUNKED, _HIDDEN, _COMPRESSION = int(Flags.CHUNKED), int(Flags.HIDDEN), int(Flags.COMPRESSION)
_SELECT = f"SELECT rowid, {COLUMNS} FROM catalog"  # noqa: S608 - two constants


def _row(columns: tuple[Any, ...], chunks: tuple[Chunk, ...] = ()) -> Row:
    (rowid, key_1, key_2, parent_1, parent_2, hardlinks, digest, size, mode, mtime, mtime_ns, flags) = columns[:12]
    (name, symlink, uid, gid, xattrs) = columns[12:]
    entry = Entry(
        name, mode, uid, gid, size, mtime, mtime_ns or 0, symlink, digest, chunks, xattrs or b"",
        hardlinks & 0xFFFFFFFF, hardlinks >> 32,
        compression_of(flags) if flags & _COMPRESSION else ZLIB, bool(flags & _HIDDEN),
    )  # fmt: skip
    mount = _MOUNTS.get(flags & _MOUNT_BITS)
    if mount is None:
        raise BadCatalog("(open)", f"row {rowid} claims to be two kinds of mountpoint at once")
    return Row(entry, mount, (key_1, key_2), (parent_1, parent_2), rowid, flags)


class Catalog:
    """A catalog's answers. Safe for one thread at a time; `close` it when done."""

    def __init__(self, name: str, database: sqlite3.Connection) -> None:
        """*name* is for messages; *database* becomes the catalog's own."""
        self._name, self._database = name, database
        database.text_factory = bytes
        self._harden()
        self.prefix = self.properties().get(b"root_prefix", b"")

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> "Catalog":
        """Open a catalog held in memory (uncompressed)."""
        database = sqlite3.connect(":memory:", check_same_thread=False)
        database.deserialize(data)
        return cls(name, database)

    @classmethod
    def from_file(cls, name: str, path: Path) -> "Catalog":
        """Open a catalog that lies uncompressed in *path*, which must not change any more."""
        location = quote(str(path))
        try:
            database = sqlite3.connect(f"file:{location}?mode=ro&immutable=1", uri=True, check_same_thread=False)
            database.execute("PRAGMA mmap_size = 1073741824")  # read from the page cache; SQLite's own stays empty
        except sqlite3.DatabaseError as error:
            raise BadCatalog(name, str(error)) from error
        return cls(name, database)

    def close(self) -> None:
        self._database.close()

    def __del__(self) -> None:
        self.close()  # a connection refers to itself: without this its memory would stay until the collector comes

    def properties(self) -> dict[bytes, bytes]:
        return dict(self._query("SELECT key, value FROM properties"))

    def row(self, path: bytes) -> Row | None:
        """Look one path up, in this catalog's coordinates."""
        return self.row_by_key(path_key(path))

    def row_by_key(self, key: PathKey) -> Row | None:
        for columns in self._query(f"{_SELECT} WHERE md5path_1 = ? AND md5path_2 = ?", key):
            return self._with_chunks(columns)
        return None

    def row_by_id(self, rowid: int) -> Row | None:
        for columns in self._query(f"{_SELECT} WHERE rowid = ?", (rowid,)):
            return self._with_chunks(columns)
        return None

    def root(self) -> Row:
        """The row at which this catalog is mounted."""
        row = self.row(self.prefix)
        if row is None or not row.entry.is_directory:
            raise BadCatalog(self._name, "it has no root directory")
        return row

    def children(self, key: PathKey) -> list[Row]:
        """All rows, hidden ones too, whose parent has *key*; in the order of their names."""
        rows = self._query(f"{_SELECT} WHERE parent_1 = ? AND parent_2 = ? ORDER BY name", key)
        own_root = path_key(self.prefix) if self.prefix else ROOT_KEY
        return [self._with_chunks(columns) for columns in rows if columns[1:3] != own_root]

    def page(self, key: PathKey, after: int, limit: int) -> list[Row]:
        """The next *limit* rows, hidden ones too, whose parent has *key*; by rowid, the first beyond *after*.

        For listings: the chunks of big files are left out.
        """
        where = "WHERE parent_1 = ? AND parent_2 = ? AND rowid > ? ORDER BY rowid LIMIT ?"
        return [_row(columns) for columns in self._query(f"{_SELECT} {where}", (*key, after, limit))]

    def name_and_parent(self, key: PathKey) -> tuple[bytes, PathKey] | None:
        """One step on the way from a row up to the root."""
        for name, *parent in self._query(
            "SELECT name, parent_1, parent_2 FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?", key
        ):
            return name, (parent[0], parent[1])
        return None

    def link_groups(self, key: PathKey) -> dict[int, int]:
        """Of the directory with *key*: the first rowid of each group of names that share an inode."""
        where = "WHERE parent_1 = ? AND parent_2 = ? AND hardlinks > 4294967295 GROUP BY 1"
        return dict(self._query(f"SELECT hardlinks >> 32, min(rowid) FROM catalog {where}", key))  # noqa: S608 - constant

    def last_rowid(self) -> int:
        return int(self._query("SELECT coalesce(max(rowid), 0) FROM catalog")[0][0])

    def rows(self) -> Iterator[Row]:
        """Every row, in the order written."""
        chunks = self._chunks_by_key()
        for columns in self._query(f"{_SELECT} ORDER BY rowid"):
            yield _row(columns, chunks.get(columns[1:3], ()))

    def rows_by_key(self) -> Iterator[Row]:
        """Every row, by its key. Few are held at a time; the catalog may be asked other things meanwhile."""
        chunks = self._chunks_by_key()
        after: PathKey = (-(1 << 63), -(1 << 63))
        where = "WHERE (md5path_1, md5path_2) > (?, ?) ORDER BY md5path_1, md5path_2 LIMIT 1000"
        while found := self._query(f"{_SELECT} {where}", after):
            yield from (_row(columns, chunks.get(columns[1:3], ())) for columns in found)
            after = found[-1][1:3]

    def nested(self) -> dict[bytes, CatalogRef]:
        """Where other catalogs of these coordinates begin, by path."""
        return self._mountpoints("nested_catalogs")

    def binds(self) -> dict[bytes, CatalogRef]:
        """Where trees are mounted, by path."""
        return self._mountpoints("bind_mountpoints")

    def mounted_at(self, path: bytes, mount: Mount) -> CatalogRef | None:
        """Which catalog continues at *path*, where a row says that one does."""
        table = "bind_mountpoints" if mount is Mount.BIND else "nested_catalogs"
        sql = f"SELECT path, sha1, size FROM {table} WHERE path = CAST(? AS TEXT)"  # noqa: S608 - one of two names
        return next(iter(self._refs(self._query(sql, (path,))).values()), None)

    def counters(self) -> tuple[Counters, Counters]:
        """What this catalog contains, and what all nested below it contain."""
        found = dict(self._query("SELECT counter, value FROM statistics"))
        try:
            own, below = (
                Counters(*(found[f"{scope}_{name}".encode()] for name in Counters._fields))
                for scope in ("self", "subtree")
            )
        except KeyError as missing:
            raise BadCatalog(self._name, f"counter {missing} is missing") from None
        return own, below

    def _mountpoints(self, table: str) -> dict[bytes, CatalogRef]:
        return self._refs(self._query(f"SELECT path, sha1, size FROM {table}"))  # noqa: S608 - one of two names above

    def _refs(self, rows: list[tuple[Any, ...]]) -> dict[bytes, CatalogRef]:
        return {path: CatalogRef(parse_hash(digest.decode("latin-1")), size) for path, digest, size in rows}

    def _with_chunks(self, columns: tuple[Any, ...]) -> Row:
        if columns[11] & _CHUNKED:
            where = "SELECT offset, size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? ORDER BY offset"
            return _row(columns, tuple(Chunk(*chunk) for chunk in self._query(where, columns[1:3])))
        return _row(columns)

    def _chunks_by_key(self) -> dict[PathKey, tuple[Chunk, ...]]:
        found: dict[PathKey, tuple[Chunk, ...]] = {}
        for key_1, key_2, *chunk in self._query(
            "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY md5path_1, md5path_2, offset"
        ):
            found[key_1, key_2] = (*found.get((key_1, key_2), ()), Chunk(*chunk))
        return found

    def _harden(self) -> None:
        self._query("PRAGMA trusted_schema = OFF")
        self._query("PRAGMA cell_size_check = ON")
        for kind, name in self._query("SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"):
            raise BadCatalog(self._name, f"holds a {kind.decode()} ({name.decode(errors='replace')})")

    def _query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise BadCatalog(self._name, str(error)) from error
