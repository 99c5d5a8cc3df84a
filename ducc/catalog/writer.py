"""A tree becomes catalogs, leaf first.

The bytes depend on nothing but the tree, its place and the policy: rows are written in path order into a fresh
database, the index last, and no clock is asked. So equal trees have equal hashes, and a subtree that two trees share
is one object.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        self._rows: list[tuple[Any, ...]] = []
        self._chunks: list[tuple[Any, ...]] = []
        self._nested_refs: list[tuple[bytes, CatalogRef]] = []
        self._bind_refs: list[tuple[bytes, CatalogRef]] = []
        self._count = Counter[str]()
        self._link_groups = 0

    def write(self, properties: Mapping[str, str]) -> WrittenTree:
        entry = self._collect()
        own = Counters(**self._count)
        below = self._counters_below()
        database = self._database(own, below, properties)
        counters = own.plus(below)
        return WrittenTree(self._sink.put(database, counters), entry, counters)

    def _collect(self) -> Entry:
        key = path_key(self._path)
        parent = path_key(self._path.rpartition(b"/")[0]) if self._path else NO_PARENT
        entry = _with_linkcount(self._root)
        self._add(key, parent, entry, int(Flags.NESTED_ROOT) if self._path else 0)
        pending = [_Waiting(self._path, key, self._root)]
        while pending:
            pending.extend(reversed(list(self._children(pending.pop()))))
        self._count["nested"] = len(self._nested_refs)
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
                self._add(key, parent.key, node.entry, int(Flags.BIND_MOUNTPOINT))
            elif nested := node if isinstance(node, Nested) else self._below.get(path):
                self._nested_refs.append((path, nested.ref))
                self._add(key, parent.key, nested.entry, int(Flags.NESTED_MOUNTPOINT))
            elif isinstance(node, Directory):
                self._add(key, parent.key, _with_linkcount(node), 0)
                yield _Waiting(path, key, node)

    def _marked(self, parent: _Waiting) -> dict[bytes, Node]:
        if parent.directory is self._root and self._path:
            return {**parent.directory.children, MARKER: self._sink.marker()}
        return parent.directory.children

    def _number_links(self, children: Mapping[bytes, Node]) -> dict[bytes, Entry]:
        """Give the names of a directory that share an inode a group of this catalog, and count them."""
        groups: dict[int, list[Entry]] = {}
        for name in sorted(children):
            node = children[name]
            if isinstance(node, Entry) and node.link_group:
                groups.setdefault(node.link_group, []).append(node)
        linked: dict[bytes, Entry] = {}
        for members in groups.values():
            self._link_groups += len(members) > 1
            group = self._link_groups if len(members) > 1 else 0
            linked |= {one.name: one._replace(link_group=group, linkcount=len(members)) for one in members}
        return linked

    def _add(self, key: PathKey, parent: PathKey, entry: Entry, mount_flag: int) -> None:
        flags = entry.flags
        self._rows.append((
            *key, *parent, entry.link_group << 32 | entry.linkcount, entry.content, entry.size, entry.mode,
            entry.mtime, entry.mtime_ns or None, flags | mount_flag, entry.name if parent != NO_PARENT else b"",
            entry.symlink, entry.uid, entry.gid, entry.xattrs or None,
        ))  # fmt: skip
        for chunk in entry.chunks:
            self._chunks.append((*key, *chunk))
        self._tally(entry, flags)

    def _tally(self, entry: Entry, flags: int) -> None:
        count = self._count
        if entry.xattrs:
            count["xattr"] += 1
        if flags & Flags.DIRECTORY:
            count["dir"] += 1
        elif flags & Flags.LINK:
            count["symlink"] += 1
        elif flags & Flags.SPECIAL:
            count["special"] += 1
        else:
            count["regular"] += 1
            count["file_size"] += entry.size
            if entry.chunks:
                count["chunked"] += 1
                count["chunks"] += len(entry.chunks)
                count["chunked_size"] += entry.size

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
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            database.execute("PRAGMA journal_mode = OFF")
            database.executescript(TABLES)
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
