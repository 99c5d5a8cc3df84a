"""One catalog, judged by itself: everything that can be told without looking at another. Pure: bytes in, report out."""

import hashlib
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from ducc.catalog.schema import SCHEMA, TABLES, CatalogRef, Counters
from ducc.catalog.tree import MARKER
from ducc.check import rules
from ducc.check.findings import Fault, Finding
from ducc.cvmfs.entry import Flags, PathKey, path_key
from ducc.cvmfs.objectname import MalformedObjectName, ObjectName, Suffix, parse_hash
from ducc.cvmfs.xattrs import decode

SHOWN = 20  # findings of one kind in one catalog that are told one by one
HEAVY_ROWS = 200_000
CROWDED_BINDS = 1_000

_NESTED_ROOT, _BIND = int(Flags.NESTED_ROOT), int(Flags.BIND_MOUNTPOINT)
_key_of = struct.Struct("<qq").unpack


class RootRow(NamedTuple):
    """What a mountpoint repeats of the root row of the catalog that continues there."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    mtime_ns: int
    linkcount: int
    xattrs: bytes


class MountRow(NamedTuple):
    """Where another catalog continues; *path* is in the coordinates of the catalog that says so."""

    path: bytes
    ref: CatalogRef
    row: RootRow
    is_bind: bool


class Reference(NamedTuple):
    """An object that an entry is made of. *size* is uncompressed, *path* in the catalog's coordinates."""

    digest: bytes
    suffix: Suffix
    size: int
    compression: int
    path: bytes

    @property
    def name(self) -> ObjectName:
        return ObjectName(self.digest, self.suffix)


@dataclass(slots=True)
class CatalogReport:
    """What one catalog is, and what is wrong with it; paths are in its own coordinates.

    Counters are as the catalog says. *root* is None when the catalog can't be made out; then the rest means nothing.
    """

    size: int
    prefix: bytes = b""
    revision: bytes = b""
    root: RootRow | None = None
    own: Counters = field(default_factory=Counters)
    below: Counters = field(default_factory=Counters)
    rows: int = 0
    mounts: list[MountRow] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def check_catalog(data: bytes) -> CatalogReport:
    """Judge a catalog, given uncompressed."""
    report = CatalogReport(len(data))
    if not data.startswith(b"SQLite format 3\0"):
        report.findings.append(Finding(Fault.CATALOG_UNREADABLE, b"", "is not an SQLite file"))
        return report
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.text_factory = bytes
            database.deserialize(data)
            _CatalogCheck(database, report).run()
    except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:  # columns of another type than declared
        report.findings.append(Finding(Fault.CATALOG_UNREADABLE, report.prefix, str(error)))
        report.root = None
    report.findings = list(_abridged(report.findings))
    return report


class _CatalogCheck:
    """The passes over one open database, in order; each adds to the report."""

    def __init__(self, database: sqlite3.Connection, report: CatalogReport) -> None:
        self._database, self._report = database, report
        self._root_key: PathKey = (0, 0)
        self._directories: dict[PathKey, bytes] = {}  # paths of those whose children are here
        self._mountpoints: dict[PathKey, bytes] = {}

    def run(self) -> None:
        if not (self._is_sound() and self._has_schema() and self._has_root()):
            return
        self._place_rows()
        self._check_rows()
        self._check_link_groups()
        self._check_counters()
        self._collect_mounts()
        self._collect_contents()
        self._collect_chunks()

    def _is_sound(self) -> bool:
        self._query("PRAGMA trusted_schema = OFF")
        self._query("PRAGMA cell_size_check = ON")
        for kind, name in self._query("SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"):
            self._find(Fault.CATALOG_UNREADABLE, b"", f"holds a {_text(kind)} ({_text(name)})")
            return False
        verdict = self._query("PRAGMA quick_check(1)")[0][0]
        if verdict != b"ok":
            self._find(Fault.CATALOG_UNREADABLE, b"", _text(verdict))
        return bool(verdict == b"ok")

    def _has_schema(self) -> bool:
        for table, wanted in _schema().items():
            columns = {column[1] for column in self._query(f"PRAGMA table_info({table})")}
            if missing := ", ".join(_text(column) for column in wanted if column not in columns):
                self._find(Fault.CATALOG_SCHEMA, b"", f"table {table} lacks {missing}")
                return False
        properties = dict(self._query("SELECT key, value FROM properties"))
        self._report.prefix = properties.get(b"root_prefix") or b""
        self._report.revision = properties.get(b"revision") or b""
        if properties.get(b"schema") != SCHEMA.encode():
            self._find(Fault.CATALOG_SCHEMA, b"", f"its schema is {_text(properties.get(b'schema'))}, not {SCHEMA}")
            return False
        if not self._query("SELECT 1 FROM sqlite_master WHERE type = 'index' AND sql LIKE '%(parent_1, parent_2)%'"):
            self._find(Fault.CATALOG_INDEX, b"", "has no index by parent")
        return True

    def _has_root(self) -> bool:
        prefix = self._report.prefix
        self._root_key = path_key(prefix)
        for flags, *columns in self._query(rules.ROOT_ROW, self._root_key):
            root = RootRow(*columns)
            if not flags & rules.DIRECTORY:
                self._find(Fault.CATALOG_ROOT, prefix, "is no directory")
            if root.name != prefix.rpartition(b"/")[2]:
                self._find(Fault.CATALOG_ROOT, prefix, f"is named {_text(root.name)!r} in its own catalog")
            if bool(flags & _NESTED_ROOT) != bool(prefix):
                self._find(Fault.CATALOG_ROOT_FLAG, prefix, "a nested catalog's root is flagged, a tree's is not")
            self._report.root = root
            return True
        self._find(Fault.CATALOG_ROOT, prefix, "the catalog has no root row")
        return False

    def _place_rows(self) -> None:
        """Go from the root to every row. Parents mostly come first; what comes before its parent waits for it."""
        self._directories[self._root_key] = self._report.prefix
        waiting = [row for row in self._database.execute(rules.KEYS) if not self._place(*row)]
        before = len(waiting) + 1
        while waiting and len(waiting) < before:
            before = len(waiting)
            waiting = [row for row in waiting if not self._place(*row)]
        for parent_1, parent_2, name, *_ in waiting:
            if (parent_1, parent_2) in self._mountpoints:
                path = self._mountpoints[parent_1, parent_2] + b"/" + (name or b"")
                self._find(Fault.MOUNTPOINT_CHILDREN, path, "is below a mountpoint")
            else:
                self._find(Fault.ENTRY_PARENT, b"?/" + (name or b""), "has no parent directory in its catalog")

    def _place(self, parent_1: int, parent_2: int, name: bytes | None, key_1: int, key_2: int, flags: int) -> bool:
        """Give a row its path, if its parent has one."""
        key = (key_1, key_2)
        if key == self._root_key:
            return True
        parent = self._directories.get((parent_1, parent_2))
        if parent is None:
            return False
        path = parent + b"/" + (name or b"")
        if _key_of(hashlib.md5(path).digest()) != key:
            self._find(Fault.ENTRY_KEY, path, "its key is that of another path")
        if flags & 1:
            (self._mountpoints if flags & rules.MOUNTED else self._directories)[key] = path
        return True

    def _check_rows(self) -> None:
        self._report.rows = rows = self._query("SELECT count(*) FROM catalog")[0][0]
        if rows > HEAVY_ROWS:
            self._find(Fault.CATALOG_HEAVY, self._report.prefix, f"has {rows} rows")
        root = {"root_1": self._root_key[0], "root_2": self._root_key[1]}
        for broken in self._query(rules.BROKEN_ROWS, root):
            for (fault, _, text), is_broken in zip(rules.ROW_RULES, broken[3:], strict=True):
                if is_broken:
                    self._find(fault, self._path(*broken[:3]), text)
        for duplicate in self._query(rules.DUPLICATES):
            self._find(Fault.ENTRY_DUPLICATE, self._path(*duplicate), "has more than one row")
        for *row, said, counted in self._query(rules.LINKCOUNTS):
            self._find(Fault.DIRECTORY_LINKCOUNT, self._path(*row), f"its link count is {said}, counted {counted}")
        for *row, xattrs in self._query(rules.XATTRS):
            if not isinstance(xattrs, bytes) or not decode(xattrs):
                self._find(Fault.ENTRY_XATTR, self._path(*row), "its extended attributes can't be decoded")
        self._check_markers()

    def _check_markers(self) -> None:
        parents = [((row[0], row[1]), self._path(*row)) for row in self._query(rules.MARKERS, (MARKER,))]
        for parent, path in parents:
            if parent != self._root_key:
                self._find(Fault.MARKER_MISPLACED, path, "no catalog is mounted here")
        if self._report.prefix and not any(parent == self._root_key for parent, _ in parents):
            self._find(Fault.MARKER_MISSING, self._report.prefix, f"has no {_text(MARKER)}")

    def _check_link_groups(self) -> None:
        for _, members_iterator in groupby(self._query(rules.LINKED), itemgetter(0)):
            members = list(members_iterator)
            path = self._path(*members[0][2:5])
            if len({member[2:4] for member in members}) > 1:
                self._find(Fault.LINK_GROUP, path, "its group has names in several directories")
            elif any(member[1] != len(members) for member in members):
                self._find(Fault.LINK_GROUP, path, f"its group has {len(members)} names, its link count is another")
            elif len({member[5:] for member in members}) > 1:
                self._find(Fault.LINK_GROUP, path, "the names of its group have different attributes")

    def _check_counters(self) -> None:
        said = dict(self._query("SELECT counter, value FROM statistics"))
        try:
            own, below = (
                Counters(*(int(said[f"{scope}_{name}".encode()]) for name in Counters._fields))
                for scope in ("self", "subtree")
            )
        except KeyError as missing:
            self._find(Fault.CATALOG_SCHEMA, b"", f"counter {_text(missing.args[0])} is missing")
            return
        self._report.own, self._report.below = own, below
        counted = Counters(*(value or 0 for value in self._query(rules.COUNTS)[0]))
        self._report.findings.extend(differing_counters("self", own, counted, self._report.prefix))

    def _collect_mounts(self) -> None:
        rows = {(one[0], one[1]): (one[2], RootRow(*one[3:])) for one in self._query(rules.MOUNT_ROWS)}
        registered = self._registered()
        for path, (ref, is_bind) in registered.items():
            flags, row = rows.pop(path_key(path), (0, None))
            if row is None or bool(flags & _BIND) != is_bind:
                self._find(
                    Fault.MOUNTPOINT_UNFLAGGED, path, f"catalog {ref} continues here, but the row does not say so"
                )
            else:
                self._report.mounts.append(MountRow(path, ref, row, is_bind))
        for key, (_, row) in rows.items():
            path = self._mountpoints.get(key, b"?/" + row.name)
            self._find(Fault.MOUNTPOINT_UNREGISTERED, path, "nothing says which catalog continues here")
        if (binds := sum(is_bind for _, is_bind in registered.values())) > CROWDED_BINDS:
            self._find(Fault.BIND_CROWDED, self._report.prefix, f"has {binds} binds")

    def _registered(self) -> dict[bytes, tuple[CatalogRef, bool]]:
        found: dict[bytes, tuple[CatalogRef, bool]] = {}
        for table, is_bind in (("nested_catalogs", False), ("bind_mountpoints", True)):
            for path, digest, size in self._query(f"SELECT path, sha1, size FROM {table}"):  # noqa: S608 - one of two
                if path in found:
                    self._find(Fault.MOUNTPOINT_TWICE, path, "a catalog is nested and another bound here")
                try:
                    found[path] = CatalogRef(parse_hash(_text(digest)), size), is_bind
                except MalformedObjectName as error:
                    self._find(Fault.MOUNTPOINT_UNREGISTERED, path, str(error))
        return found

    def _collect_contents(self) -> None:
        for *row, digest, size, flags in self._database.execute(rules.CONTENTS):
            self._report.references.append(Reference(digest, Suffix.FILE, size, flags >> 11 & 7, self._path(*row)))

    def _collect_chunks(self) -> None:
        files = {(one[0], one[1]): (self._path(*one[2:5]), *one[5:]) for one in self._query(rules.CHUNKED_FILES)}
        for key, chunks in groupby(self._query(rules.CHUNKS), itemgetter(0, 1)):
            if key not in files:
                self._find(Fault.CHUNK_STRAY, self._report.prefix, "has chunks of a file that is not in chunks")
                continue
            path, size, flags = files.pop(key)
            self._check_chunks(
                path, size, flags >> 11 & 7, [chunk[2:] for chunk in chunks], external=bool(flags & 0x80)
            )
        for path, *_ in files.values():
            self._find(Fault.CHUNK_MISSING, path, "is in chunks and has none")

    def _check_chunks(
        self, path: bytes, size: int, compression: int, chunks: list[tuple[int, int, Any]], *, external: bool
    ) -> None:
        end = 0
        for offset, length, digest in chunks:
            if offset != end or length <= 0:
                self._find(Fault.CHUNK_GAP, path, f"a chunk of {length} bytes is at {offset}, expected at {end}")
            end = offset + length
            if not isinstance(digest, bytes) or len(digest) != 20 or not any(digest):
                self._find(Fault.CHUNK_HASH, path, f"the chunk at {offset} names no object")
            elif not external:
                self._report.references.append(Reference(digest, Suffix.CHUNK, length, compression, path))
        if (total := sum(length for _, length, _ in chunks)) != size:
            self._find(Fault.CHUNK_SUM, path, f"has {size} bytes, its chunks {total}")

    def _path(self, parent_1: int, parent_2: int, name: bytes | None) -> bytes:
        parent = self._directories.get((parent_1, parent_2))
        if parent is not None:
            return parent + b"/" + (name or b"")
        is_root = self._report.root is not None and name == self._report.root.name
        return self._report.prefix if is_root else b"?/" + (name or b"")

    def _find(self, fault: Fault, path: bytes, text: str) -> None:
        self._report.findings.append(Finding(fault, path, text))

    def _query(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        return self._database.execute(sql, parameters).fetchall()


def differing_counters(scope: str, said: Counters, counted: Counters, path: bytes) -> Iterator[Finding]:
    """One finding for each counter that says something else than was counted."""
    for name, one, other in zip(Counters._fields, said, counted, strict=True):
        if one != other:
            yield Finding(Fault.CATALOG_COUNTER, path, f"{scope}_{name} is {one}, counted {other}")


def _abridged(findings: list[Finding]) -> Iterator[Finding]:
    told = Counter[Fault]()
    for finding in findings:
        told[finding.fault] += 1
        if told[finding.fault] <= SHOWN:
            yield finding
    for fault, number in told.items():
        if number > SHOWN:
            yield Finding(fault, findings[0].path, f"and {number - SHOWN} more like this in the same catalog")


@cache
def _schema() -> dict[str, list[bytes]]:
    """The columns that each table of a catalog must have."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.text_factory = bytes
        database.executescript(TABLES)
        names = [row[0].decode() for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")] for name in names}


def _text(raw: bytes | None) -> str:
    return (raw or b"nothing").decode("utf-8", "backslashreplace")
