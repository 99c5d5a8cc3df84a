"""A tree becomes catalogs, leaf first.

The bytes depend on nothing but the tree, its place and the policy: rows are written in path order into a fresh
database, the index last, and no clock is asked. So equal trees have equal hashes, and a subtree that two trees share
is one object.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

from ducc.catalog.schema import PAGE_BYTES, PARENT_INDEX, SCHEMA, SCHEMA_REVISION, TABLES, CatalogRef, Counters
from ducc.catalog.split import SplitPolicy, choose_nested
from ducc.catalog.tree import MARKER, Bind, Directory, Nested, Node, directories
from ducc.cvmfs.entry import NO_PARENT, Entry, Flags, PathKey, path_key

_INSERT_ROW = "INSERT INTO catalog VALUES (?,?,?,?,?,?,?,?,?,?,?,CAST(? AS TEXT),CAST(? AS TEXT),?,?,?)"
_INSERT_CHUNK = "INSERT INTO chunks VALUES (?,?,?,?,?)"
_INSERT_NESTED = "INSERT INTO nested_catalogs VALUES (CAST(? AS TEXT),?,?)"
_INSERT_BIND = "INSERT INTO bind_mountpoints VALUES (CAST(? AS TEXT),?,?)"
_FIXED_PROPERTIES = {"revision": "0", "last_modified": "0"}
_INSERT_PROPERTY = "INSERT INTO properties VALUES (?,CAST(? AS TEXT))"
_Row = tuple[Any, ...]  # in the order of the columns
_SIZE, _FLAGS, _XATTR = 6, 10, 15  # columns that are counted
_WITHOUT_CONTENT = Flags.DIRECTORY | Flags.LINK | Flags.SPECIAL
_KIND = _WITHOUT_CONTENT | Flags.CHUNKED
_LIBRARY_VERSION = slice(96, 100)  # bytes of a database's header that name the library which wrote it
_PINNED_VERSION = (3_040_001).to_bytes(4, "big")


class CatalogSink(Protocol):
    """Takes finished catalogs, and remembers what it took."""

    def put(self, database: bytes, counters: Counters) -> CatalogRef:
        """Store one catalog; all it refers to was put before. *counters* are of it and all nested below it."""

    def counters(self, ref: CatalogRef) -> Counters:
        """What a catalog and all nested below it contain."""

    def marker(self) -> Entry:
        """The hidden, empty file that the root of a nested catalog must hold; its object is stored."""


class WrittenTree(NamedTuple):
    """*entry* is the root row as written; *counters* are of the whole tree."""

    ref: CatalogRef
    entry: Entry
    counters: Counters


def write_tree(
    root: Directory, sink: CatalogSink, policy: SplitPolicy, properties: Mapping[str, str] | None = None
) -> WrittenTree:
    """Write the opened part of a tree as catalogs and return its name; what was not opened is kept as it is.

    *properties* go into the root catalog (revision, TTL …); a tree that is to be reproducible has none.
    """
    chosen = choose_nested(root, policy)
    below: dict[bytes, Nested] = {}  # what is written, by path; no recursion, since a path may have 2,000 levels
    for path, directory in reversed([place for place in directories(root) if id(place[1]) in chosen]):
        written = _Region(path, directory, below, sink).write(_FIXED_PROPERTIES)
        below[path] = Nested(written.entry, written.ref)
    return _Region(b"", root, below, sink).write({**_FIXED_PROPERTIES, **(properties or {})})


@dataclass(slots=True)
class _Waiting:
    """A directory of this catalog whose children are still to be written."""

    path: bytes
    key: PathKey
    directory: Directory


class _Region:
    """All that goes into one catalog: a directory and what is below it, up to where other catalogs begin."""

    def __init__(self, path: bytes, root: Directory, below: Mapping[bytes, Nested], sink: CatalogSink) -> None:
        """*below*: the catalogs that were made of directories of this tree, by path."""
        self._path, self._root, self._below, self._sink = path, root, below, sink
        self._rows: list[_Row] = []
        self._chunks: list[_Row] = []
        self._nested_refs: list[tuple[bytes, CatalogRef]] = []
        self._bind_refs: list[tuple[bytes, CatalogRef]] = []
        self._link_groups = 0

    def write(self, properties: Mapping[str, str]) -> WrittenTree:
        entry = self._collect()
        own = _count(self._rows, len(self._nested_refs), len(self._chunks))
        below = self._counters_below()
        database = self._database(own, below, properties)
        counters = own.plus(below)
        return WrittenTree(self._sink.put(database, counters), entry, counters)

    def _collect(self) -> Entry:
        key = path_key(self._path)
        parent = path_key(self._path.rpartition(b"/")[0]) if self._path else NO_PARENT
        entry = _with_linkcount(self._root)
        self._add(key, parent, entry, Flags.NESTED_ROOT if self._path else 0)
        pending = [_Waiting(self._path, key, self._root)]
        while pending:
            pending.extend(reversed(list(self._children(pending.pop()))))
        return entry

    def _children(self, parent: _Waiting) -> Iterator[_Waiting]:
        """Write the rows of one directory; yield those of its directories that belong to this catalog too."""
        children = self._marked(parent)
        links = self._number_links(children)
        for name in sorted(children):
            node = children[name]
            path = parent.path + b"/" + name
            key = path_key(path)
            if isinstance(node, Entry):
                self._add(key, parent.key, links.get(name, node), 0)
            elif isinstance(node, Bind):
                self._bind_refs.append((path, node.ref))
                self._add(key, parent.key, node.entry, Flags.BIND_MOUNTPOINT)
            elif nested := node if isinstance(node, Nested) else self._below.get(path):
                self._nested_refs.append((path, nested.ref))
                self._add(key, parent.key, nested.entry, Flags.NESTED_MOUNTPOINT)
            elif isinstance(node, Directory):
                self._add(key, parent.key, _with_linkcount(node), 0)
                yield _Waiting(path, key, node)

    def _marked(self, parent: _Waiting) -> dict[bytes, Node]:
        if parent.directory is self._root and self._path:
            return {**parent.directory.children, MARKER: self._sink.marker()}
        return parent.directory.children

    def _number_links(self, children: Mapping[bytes, Node]) -> dict[bytes, Entry]:
        """Give the names of a directory that share an inode a group of this catalog, and count them."""
        members = [node for node in children.values() if isinstance(node, Entry) and node.link_group]
        groups: dict[int, list[Entry]] = {}
        for member in sorted(members):
            groups.setdefault(member.link_group, []).append(member)
        linked: dict[bytes, Entry] = {}
        for members in groups.values():
            self._link_groups += len(members) > 1
            group = self._link_groups if len(members) > 1 else 0
            linked |= {one.name: one._replace(link_group=group, linkcount=len(members)) for one in members}
        return linked

    def _add(self, key: PathKey, parent: PathKey, entry: Entry, mount_flag: int) -> None:
        (name, mode, uid, gid, size, mtime, mtime_ns, symlink, content, chunks, xattrs, linkcount, group, _, _) = entry
        self._rows.append((
            *key, *parent, group << 32 | linkcount, content, size, mode, mtime, mtime_ns or None,
            entry.flags | mount_flag, name if parent != NO_PARENT else b"", symlink, uid, gid, xattrs or None,
        ))  # fmt: skip
        for chunk in chunks:
            self._chunks.append((*key, *chunk))

    def _counters_below(self) -> Counters:
        """Sum up the catalogs nested here, starting from what the former catalog said of those that stayed."""
        now = {ref for _, ref in self._nested_refs}
        origin = self._root.origin
        total, before = (origin.subtree, origin.nested) if origin else (Counters(), frozenset())
        for ref in before - now:
            total = total.minus(self._sink.counters(ref))
        for ref in now - before:
            total = total.plus(self._sink.counters(ref))
        return total

    def _database(self, own: Counters, below: Counters, properties: Mapping[str, str]) -> bytes:
        database = sqlite3.connect(":memory:", isolation_level=None)
        try:
            database.deserialize(_empty_database())
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("BEGIN")
            database.executemany(_INSERT_ROW, self._rows)
            database.executemany(_INSERT_CHUNK, self._chunks)
            database.executemany(_INSERT_NESTED, [(path, str(ref), ref.size) for path, ref in self._nested_refs])
            database.executemany(_INSERT_BIND, [(path, str(ref), ref.size) for path, ref in self._bind_refs])
            database.executemany("INSERT INTO statistics VALUES (?,?)", _statistics(own, below))
            database.executemany(_INSERT_PROPERTY, self._properties(properties).items())
            database.execute(PARENT_INDEX)
            database.execute("COMMIT")
            return pin_library_version(database.serialize())
        finally:
            database.close()

    def _properties(self, given: Mapping[str, str]) -> dict[str, str | bytes]:
        own: dict[str, str | bytes] = {"schema": SCHEMA, "schema_revision": SCHEMA_REVISION, **given}
        return {**own, "root_prefix": self._path} if self._path else own


@cache
def _empty_database() -> bytes:
    """A catalog's tables without rows, to start from."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.executescript(TABLES)
        return database.serialize()


def _count(rows: Sequence[_Row], nested: int, chunks: int) -> Counters:
    """What the rows of a catalog add up to."""
    kinds = Counter(row[_FLAGS] & _KIND for row in rows)
    contents = [row for row in rows if not row[_FLAGS] & _WITHOUT_CONTENT]
    return Counters(
        regular=len(contents),
        symlink=kinds[Flags.LINK],
        special=kinds[Flags.SPECIAL],
        dir=kinds[Flags.DIRECTORY],
        nested=nested,
        chunked=kinds[Flags.CHUNKED],
        chunks=chunks,
        file_size=sum(row[_SIZE] for row in contents),
        chunked_size=sum(row[_SIZE] for row in contents if row[_FLAGS] & Flags.CHUNKED),
        xattr=sum(row[_XATTR] is not None for row in rows),
    )


def pin_library_version(database: bytes) -> bytes:
    """Overwrite the version of the SQLite library in a database's header: it is no content, and would name objects."""
    pinned = bytearray(database)
    pinned[_LIBRARY_VERSION] = _PINNED_VERSION
    return bytes(pinned)


def _with_linkcount(directory: Directory) -> Entry:
    below = sum(1 for node in directory.children.values() if not isinstance(node, Entry))
    return directory.entry._replace(linkcount=2 + below, link_group=0)


def _statistics(own: Counters, below: Counters) -> Iterator[tuple[str, int]]:
    for scope, counters in (("self", own), ("subtree", below)):
        for name, value in counters._asdict().items():
            yield f"{scope}_{name}", value
