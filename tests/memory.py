"""Trees, catalogs and repositories in memory: made from values, and read back by ways that are not the code's own.

catalogs = catalogs_in_memory()
written = write_tree(tree({b"/etc/motd": file(b"motd")}), catalogs, policy)
rows(catalogs.load(written.ref), catalogs)        {b"": …, b"/etc": …, b"/etc/motd": …}
counted(catalogs, written.ref)                     the counters, by counting every row of every catalog
"""

import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ducc.catalog.reader import Catalog, Mount
from ducc.catalog.schema import CatalogRef, Counters
from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import Bind, Directory, Nested, Node, entry_of
from ducc.check.findings import Finding, Severity
from ducc.check.repository import check_repository
from ducc.cvmfs.compression import compressor, inflate
from ducc.cvmfs.entry import Chunk, Entry
from ducc.cvmfs.objectname import ObjectName
from ducc.publish.init import init_repository
from ducc.publish.keys import KeyDirectory, SigningKeys
from ducc.publish.repository import Repository
from ducc.publish.settings import RepositorySettings
from ducc.storage.memory import MemoryStore

COMPRESSOR = "libdeflate-1"


def catalogs_in_memory(store: MemoryStore | None = None) -> CatalogStore:
    return CatalogStore(store or MemoryStore(), compressor(COMPRESSOR), inflate)


def forgetful(catalogs: CatalogStore) -> CatalogStore:
    """The same objects, nothing of them loaded."""
    return catalogs_in_memory(catalogs._store)


# --- making --------------------------------------------------------------------------------


def content(seed: bytes) -> bytes:
    """A digest for a file; nobody looks for the object."""
    return seed.ljust(20, b"\0")[:20]


def file(name: bytes, seed: bytes = b"", **fields: Any) -> Entry:
    return Entry(name, stat.S_IFREG | 0o644, content=content(seed or name), **{"size": len(seed), **fields})


def chunked(name: bytes, *sizes: int) -> Entry:
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    pieces = tuple(Chunk(at, size, content(b"%d" % at)) for at, size in zip(offsets, sizes, strict=True))
    return Entry(name, stat.S_IFREG | 0o644, size=sum(sizes), chunks=pieces)


def symlink(name: bytes, target: bytes) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, size=len(target), symlink=target)


def special(name: bytes, kind: int, device: int = 0) -> Entry:
    return Entry(name, kind | 0o600, size=device)


def directory_entry(name: bytes = b"", **fields: Any) -> Entry:
    return Entry(name, **{"mode": stat.S_IFDIR | 0o755, "size": 4096, **fields})


def tree(nodes: Mapping[bytes, Node]) -> Directory:
    """A tree of *nodes* by path; directories that are missing are made. In the order given."""
    root = Directory(directory_entry())
    for path, node in nodes.items():
        *above, name = path.split(b"/")[1:]
        at = root
        for part in above:
            child = at.children.setdefault(part, Directory(directory_entry(part)))
            assert isinstance(child, Directory)
            at = child
        at.children[name] = node
    return root


# --- reading -------------------------------------------------------------------------------


def nodes(root: Directory, catalogs: CatalogStore) -> Iterator[tuple[bytes, Node]]:
    """Everything in a tree, nested catalogs opened; parents first."""
    pending: list[tuple[bytes, Node]] = [(b"", root)]
    while pending:
        path, node = pending.pop()
        yield path, node
        if isinstance(node, Nested):
            node = catalogs.open_nested(node)
        if isinstance(node, Directory):
            pending += [(path + b"/" + name, node.children[name]) for name in sorted(node.children, reverse=True)]


def rows(root: Directory, catalogs: CatalogStore) -> dict[bytes, Any]:
    """Path → what stands there, wherever catalogs begin. A link group is the names in it."""
    found: dict[bytes, Any] = {}
    groups: dict[tuple[bytes, int], list[bytes]] = {}
    for path, node in nodes(root, catalogs):
        entry = entry_of(node)
        if entry.link_group:
            groups.setdefault((path.rpartition(b"/")[0], entry.link_group), []).append(path)
        entry = entry._replace(linkcount=0) if entry.is_directory else entry
        found[path] = (entry, node.ref) if isinstance(node, Bind) else entry
    for members in groups.values():
        names = tuple(sorted(members)) if len(members) > 1 else 0
        for path in members:
            found[path] = found[path]._replace(link_group=names, linkcount=len(members))
    return found


def refs(catalogs: CatalogStore, ref: CatalogRef) -> dict[bytes, CatalogRef]:
    """The catalogs of a tree, by the path at which they begin."""
    found, pending = {}, [(b"", ref)]
    while pending:
        path, ref = pending.pop()
        found[path] = ref
        pending += opened(catalogs, ref).nested().items()
    return found


def opened(catalogs: CatalogStore, ref: CatalogRef) -> Catalog:
    return forgetful(catalogs).open_catalog(ref)


def counted(catalogs: CatalogStore, ref: CatalogRef) -> Counters:
    """All counters of a tree, counted; every catalog's own 24 must be what is counted."""
    own: dict[bytes, Counters] = {}
    said: dict[bytes, tuple[Counters, Counters]] = {}
    for path, one in refs(catalogs, ref).items():
        catalog = opened(catalogs, one)
        own[path], said[path] = _count(catalog), catalog.counters()
    for path, (of_itself, of_those_below) in said.items():
        below = [counters for other, counters in own.items() if other != path and other.startswith(path + b"/")]
        assert of_itself == own[path], path
        assert of_those_below == _sum(below), path
    return _sum(own.values())


def _sum(counters: Any) -> Counters:
    return Counters(*map(sum, zip(*counters, strict=True))) if counters else Counters()


def _count(catalog: Catalog) -> Counters:
    entries = [row.entry for row in catalog.rows()]
    files = [entry for entry in entries if entry.is_regular]
    cut = [entry for entry in files if entry.chunks]
    kinds = {kind: sum(stat.S_IFMT(entry.mode) == kind for entry in entries) for kind in (stat.S_IFLNK, stat.S_IFDIR)}
    return Counters(
        regular=len(files),
        symlink=kinds[stat.S_IFLNK],
        special=len(entries) - len(files) - sum(kinds.values()),
        dir=kinds[stat.S_IFDIR],
        nested=sum(row.mount is Mount.NESTED for row in catalog.rows()),
        chunked=len(cut),
        chunks=sum(len(entry.chunks) for entry in cut),
        file_size=sum(entry.size for entry in files),
        chunked_size=sum(entry.size for entry in cut),
        xattr=sum(bool(entry.xattrs) for entry in entries),
    )


# --- repositories --------------------------------------------------------------------------

FQRN = "test.example.org"
INIT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLOCK = INIT.timestamp() + 60  # when things are published


@cache
def _first_revision(fqrn: str) -> tuple[dict[ObjectName, bytes], dict[str, bytes], SigningKeys]:
    """Made once: keys take a while."""
    store = MemoryStore()
    with TemporaryDirectory() as directory:
        keys = KeyDirectory(Path(directory), fqrn)
        init_repository(store, keys, RepositorySettings(), INIT)
        return store.objects, store.files, keys.load()


def new_repository(fqrn: str = FQRN, store: MemoryStore | None = None) -> tuple[Repository, SigningKeys]:
    """A repository of its own at revision 1, in *store* if there is one. Repositories of one name share their keys."""
    store = store or MemoryStore()
    objects, files, keys = _first_revision(fqrn)
    store.objects.update(objects)
    store.files.update(files)
    return Repository(fqrn, store), keys


def errors(store: MemoryStore, keys: SigningKeys) -> list[Finding]:
    """What `ducc check --data` finds wrong with what everybody sees; warnings left out."""
    found: list[Finding] = []
    visible = MemoryStore()
    visible.objects, visible.files = store.objects, store.files
    check_repository(visible, keys.fqrn, [keys.master_public_key], INIT, found.append, data=True)
    return [finding for finding in found if finding.fault.severity is Severity.ERROR]
