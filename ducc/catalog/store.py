"""Catalogs as values in an object store: loaded once, verified, remembered; written compressed under their hash."""

import stat
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from ducc.catalog.reader import BadCatalog, Catalog, Mount
from ducc.catalog.schema import CatalogRef, Counters
from ducc.catalog.tree import MARKER, Bind, Directory, Nested, Node, Origin
from ducc.cvmfs.entry import Entry, PathKey, path_key
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.storage.base import ObjectStore

REMEMBERED_ROWS = 300_000  # rows of loaded catalogs that are kept, in all


class CatalogStore:
    """The `CatalogSink` of a writer and the opener of nested catalogs, over one object store. Thread-safe."""

    def __init__(
        self,
        store: ObjectStore,
        compress: Callable[[bytes], bytes | bytearray],
        inflate: Callable[[bytes, int], bytes],
    ) -> None:
        """*inflate* gets an object's bytes and the size that they must have uncompressed."""
        self._store, self._compress, self._inflate = store, compress, inflate
        self._loaded: OrderedDict[bytes, tuple[Directory, int]] = OrderedDict()
        self._rows = 0
        self._counters: dict[CatalogRef, Counters] = {}
        self._lock = Lock()

    def put(self, database: bytes, counters: Counters) -> CatalogRef:
        stored = self._compress(database)
        name = ObjectName.of(stored, Suffix.CATALOG)
        if not self._store.exists(name):
            self._store.put(name, stored)
        ref = CatalogRef(name.digest, len(database))
        self._counters[ref] = counters
        return ref

    def marker(self) -> Entry:
        stored = self._compress(b"")
        name = ObjectName.of(stored)
        if not self._store.exists(name):
            self._store.put(name, stored)
        return Entry(MARKER, stat.S_IFREG | 0o600, content=name.digest, hidden=True)

    def counters(self, ref: CatalogRef) -> Counters:
        """What a catalog and all nested below it contain."""
        if ref not in self._counters:
            catalog = self.open_catalog(ref)
            own, below = catalog.counters()
            self._counters[ref] = own.plus(below)
            catalog.close()
        return self._counters[ref]

    def open_catalog(self, ref: CatalogRef) -> Catalog:
        """Fetch, verify and open one catalog."""
        name = ObjectName(ref.digest, Suffix.CATALOG)
        stored = self._store.get(name)
        if ObjectName.of(stored, Suffix.CATALOG) != name:
            raise BadCatalog(str(ref), "the store holds other bytes under this name; run `ducc check --data`")
        return Catalog.from_bytes(str(ref), self._inflate(stored, ref.size))

    def open_nested(self, nested: Nested) -> Directory:
        """Return the subtree behind a nested mountpoint, with the attributes of its mountpoint."""
        return replace(self.load(nested.ref), entry=nested.entry, nested=True)

    def load(self, ref: CatalogRef) -> Directory:
        """Return a catalog's tree; what is nested in it stays unopened. Shared: do not change it."""
        with self._lock:
            if ref.digest in self._loaded:
                self._loaded.move_to_end(ref.digest)
                return self._loaded[ref.digest][0]
        catalog = self.open_catalog(ref)
        try:
            root, rows = _tree_of(catalog)
        except KeyError as error:
            raise BadCatalog(str(ref), "a row has no parent, or a mountpoint no catalog") from error
        own, below = catalog.counters()
        self._counters[ref] = own.plus(below)
        catalog.close()
        self._remember(ref, root, rows)
        return root

    def _remember(self, ref: CatalogRef, root: Directory, rows: int) -> None:
        with self._lock:
            if ref.digest not in self._loaded:
                self._loaded[ref.digest] = (root, rows)
                self._rows += rows
            while self._rows > REMEMBERED_ROWS and len(self._loaded) > 1:
                self._rows -= self._loaded.popitem(last=False)[1][1]


def _tree_of(catalog: Catalog) -> tuple[Directory, int]:
    """Return the tree that one catalog describes, and its number of rows."""
    nested, binds = catalog.nested(), catalog.binds()
    mountpoints = {path_key(path): ref for path, ref in (nested | binds).items()}
    nodes: dict[PathKey, Directory] = {}
    rows = list(catalog.rows())
    for row in rows:
        if row.entry.is_directory and row.mount in (Mount.NONE, Mount.ROOT):
            nodes[row.key] = Directory(row.entry)
    root = nodes[path_key(catalog.prefix)]
    for row in rows:
        node: Node = nodes.get(row.key, row.entry)
        if node is root:
            continue
        if row.mount in (Mount.NESTED, Mount.BIND):
            node = (Nested if row.mount is Mount.NESTED else Bind)(row.entry, mountpoints[row.key])
        nodes[row.parent].children[row.entry.name] = node
    if catalog.prefix:
        root.children.pop(MARKER, None)
    root.origin = Origin(catalog.counters()[1], frozenset(nested.values()))
    return root, len(rows)
