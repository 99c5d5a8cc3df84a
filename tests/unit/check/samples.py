"""A small repository in memory with one of everything, which can be spoilt at any place.

/readme  /flat (nested catalog)  /flat/image → bind of the tree
tree: /etc with a file, links, chunks, a pipe, a device; /usr (nested catalog) /usr/bin/sh
"""

import hashlib
import os
import sqlite3
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from ducc.catalog.history import History, Tag
from ducc.catalog.reflog import RefKind, Reflog
from ducc.catalog.schema import CatalogRef
from ducc.catalog.split import SplitPolicy
from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import Bind, Directory
from ducc.catalog.writer import write_tree
from ducc.check.repository import Seen, check_repository
from ducc.cvmfs import xattrs
from ducc.cvmfs.compression import compressor, inflate
from ducc.cvmfs.entry import Chunk, Entry
from ducc.cvmfs.manifest import Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import sign_manifest
from ducc.publish.keys import sign_whitelist
from ducc.storage.base import MANIFEST, REFLOG, WHITELIST
from ducc.storage.memory import MemoryStore
from tests.signing import FQRN, NOW, keys

KEYS, MASTER = keys()
MASTERS = (MASTER.public_key(),)
COMPRESS = compressor("zlib-6")
POLICY = SplitPolicy(keep_all=True)
TIMESTAMP = int(NOW.timestamp())

Place = str  # "tree", "tree/usr", "trunk", "trunk/flat"


class SpoiltCatalogs(CatalogStore):
    """Runs SQL on catalogs before they are stored; `high('/a')` and `low('/a')` are the halves of a path's key."""

    def __init__(self, store, spoil: Mapping[Place, Sequence[str]]):
        super().__init__(store, COMPRESS, inflate)
        self.stage, self._spoil = "tree", spoil

    def put(self, database, counters):
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.deserialize(database)
        connection.create_function("high", 1, lambda path: struct.unpack("<qq", hashlib.md5(path.encode()).digest())[0])
        connection.create_function("low", 1, lambda path: struct.unpack("<qq", hashlib.md5(path.encode()).digest())[1])
        prefix = connection.execute("SELECT CAST(value AS TEXT) FROM properties WHERE key = 'root_prefix'").fetchone()
        for statement in self._spoil.get(self.stage + (prefix[0] if prefix else ""), ()):
            connection.execute(statement)
        return super().put(connection.serialize(), counters)


@dataclass
class Roots:
    """What is above the catalogs, before it is signed and stored."""

    manifest: dict
    history: History
    reflog: Reflog
    certificate_pem: bytes = KEYS.certificate_pem
    metainfo: bytes = b"{}"
    reflog_bytes: Callable[[bytes], bytes] = lambda data: data


@dataclass
class Sample:
    """A repository and the names of what it is made of."""

    store: MemoryStore = field(default_factory=MemoryStore)
    tree: CatalogRef | None = None
    trunk: CatalogRef | None = None
    content: ObjectName | None = None
    chunk: ObjectName | None = None

    def put(self, data: bytes, suffix: Suffix = Suffix.FILE) -> ObjectName:
        stored = COMPRESS(data)
        name = ObjectName.of(stored, suffix)
        self.store.put(name, bytes(stored))
        self.store.flush()
        return name

    def check(self, *, data=False, masters=MASTERS, now=NOW) -> tuple[list, Seen]:
        found = []
        seen = check_repository(self.store, FQRN, masters, now, found.append, data=data)
        return found, seen


def build(spoil: Mapping[Place, Sequence[str]] | None = None, roots: Callable[[Roots], None] | None = None) -> Sample:
    """A repository without fault, but for what *spoil* does to its catalogs and *roots* to what is above them."""
    sample = Sample()
    catalogs = SpoiltCatalogs(sample.store, spoil or {})
    tree = write_tree(_tree(sample), catalogs, POLICY)
    catalogs.stage = "trunk"
    flat = _directory(b"flat", Bind(tree.entry._replace(name=b"image"), tree.ref), nested=True)
    root = _directory(b"", flat, _file(b"readme", sample.put(b"hello")))
    trunk = write_tree(root, catalogs, POLICY, {"revision": "1", "TTL": "240"})
    sample.tree, sample.trunk = tree.ref, trunk.ref
    _sign(sample, roots)
    return sample


def _sign(sample: Sample, change: Callable[[Roots], None] | None) -> None:
    root, size = sample.trunk
    manifest = {"root_hash": root, "root_size": size, "ttl_seconds": 240, "revision": 1, "timestamp": TIMESTAMP}
    above = Roots({**manifest, "fqrn": FQRN}, History.new(FQRN), Reflog.new(FQRN))
    above.history.set_tag(Tag("trunk", root, 1, TIMESTAMP, size=size))
    above.history.set_tag(Tag("tree", sample.tree.digest, 0, TIMESTAMP, size=sample.tree.size))
    for ref in (sample.trunk, sample.tree):
        above.reflog.add(ref.digest, RefKind.CATALOG, TIMESTAMP)
    for kind, data in (("certificate", above.certificate_pem), ("metainfo", above.metainfo)):
        _add_root(sample, above, kind, data)
    if change:
        change(above)
    for kind, data in (
        ("certificate", above.certificate_pem),
        ("metainfo", above.metainfo),
        ("history", above.history.to_bytes()),
    ):
        if kind not in above.manifest or above.manifest[kind] is not None:
            _add_root(sample, above, kind, data)
    reflog = above.reflog.to_bytes()
    named = Manifest(**{"reflog": hashlib.sha1(reflog).digest(), **above.manifest})
    sample.store.files[REFLOG] = above.reflog_bytes(reflog)
    sample.store.files[WHITELIST] = sign_whitelist(KEYS, MASTER, NOW - timedelta(days=1))
    sample.store.files[MANIFEST] = sign_manifest(named, KEYS.repository_key)


def _add_root(sample: Sample, above: Roots, kind: str, data: bytes) -> None:
    digest = sample.put(data, Suffix[kind.upper()]).digest
    above.manifest[kind] = digest
    above.reflog.add(digest, RefKind[kind.upper()], TIMESTAMP)


def _tree(sample: Sample) -> Directory:
    sample.content = sample.put(b"root:x:0:0:")
    sample.chunk = sample.put(b"1" * 100, Suffix.CHUNK)
    other_chunk = sample.put(b"2" * 50, Suffix.CHUNK)
    chunks = (Chunk(0, 100, sample.chunk.digest), Chunk(100, 50, other_chunk.digest))
    linked = _file(b"", sample.content, link_group=1)
    usr = _directory(
        b"usr", _directory(b"bin", _file(b"sh", sample.put(b"#!"), mode=stat.S_IFREG | 0o755)), nested=True
    )
    etc = _directory(
        b"etc",
        _file(b"passwd", sample.content, xattrs=xattrs.encode([(b"user.a", b"b")])),
        Entry(b"symlink", stat.S_IFLNK | 0o777, size=6, symlink=b"passwd"),
        linked._replace(name=b"one"),
        linked._replace(name=b"two"),
        Entry(b"big", stat.S_IFREG | 0o644, size=150, chunks=chunks),
        Entry(b"pipe", stat.S_IFIFO | 0o644),
        Entry(b"null", stat.S_IFCHR | 0o666, size=os.makedev(1, 3)),
        _directory(b"empty"),
    )
    return _directory(b"", etc, usr)


def _directory(name: bytes, *children: Entry | Directory | Bind, nested: bool = False) -> Directory:
    entry = Entry(name, stat.S_IFDIR | 0o755, size=4096, mtime=TIMESTAMP)
    named = {(child if isinstance(child, Entry) else child.entry).name: child for child in children}
    return Directory(entry, named, nested)


def _file(name: bytes, content: ObjectName, **attributes: object) -> Entry:
    sizes = {b"sh": 2, b"readme": 5}
    return Entry(name, stat.S_IFREG | 0o644, size=sizes.get(name, 11), content=content.digest)._replace(**attributes)
