"""A publisher for tests: whole trunks, from values, one revision after the other.

    publisher = Publisher(MemoryStore())
    publisher.publish({b"/motd": publisher.file(b"motd", b"hello"), b"/image": publisher.bind({…})})

What it leaves out (tag database, reflog) no client reads. A store with sessions must have one open.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ducc.catalog.split import SplitPolicy
from ducc.catalog.tree import Bind, Directory, Node, find
from ducc.catalog.writer import WrittenTree, write_tree
from ducc.cvmfs.compression import compressor
from ducc.cvmfs.entry import Chunk, Entry
from ducc.cvmfs.manifest import Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import sign_manifest
from ducc.publish.keys import sign_whitelist
from ducc.storage.base import MANIFEST, WHITELIST, ObjectStore
from tests import signing
from tests.memory import COMPRESSOR, catalogs_in_memory, file, tree

AS_MARKED = SplitPolicy(heavy=10**9, light=10**9, limit=10**9, keep_all=True)


class Publisher:
    """Publishes to *store*; everything is signed with the tests' own keys, each repository's with others."""

    def __init__(
        self, store: ObjectStore, now: datetime = signing.NOW, ttl_seconds: int = 240, fqrn: str = signing.FQRN
    ) -> None:
        self.store, self.now = store, now
        self.keys, self.master = signing.keys(fqrn, 0)
        self._catalogs = catalogs_in_memory(store)  # type: ignore[arg-type]
        self._compress = compressor(COMPRESSOR)
        self.manifest = Manifest(bytes(20), 0, ttl_seconds, 0, int(now.timestamp()), self.keys.fqrn)
        store.write_file(WHITELIST, sign_whitelist(self.keys, self.master, now))

    def public_key(self, path: Path) -> Path:
        path.write_bytes(self.keys.master_public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return path

    def put(self, data: bytes, suffix: Suffix = Suffix.FILE) -> bytes:
        """Store an object; return its digest."""
        stored = self._compress(data)
        name = ObjectName.of(stored, suffix)
        self.store.put(name, stored)
        return name.digest

    def file(self, name: bytes, data: bytes = b"", **fields: Any) -> Entry:
        return file(name, size=len(data))._replace(content=self.put(data), **fields)

    def chunked(self, name: bytes, *pieces: bytes) -> Entry:
        chunks, offset = [], 0
        for piece in pieces:
            chunks.append(Chunk(offset, len(piece), self.put(piece, Suffix.CHUNK)))
            offset += len(piece)
        return file(name)._replace(content=None, chunks=tuple(chunks), size=offset)

    def bind(self, nodes: Mapping[bytes, Node], name: bytes, nested: Collection[bytes] = ()) -> Bind:
        """Write a tree of its own, to be mounted under *name*."""
        written = self._write(tree(nodes), nested, None)
        return Bind(written.entry._replace(name=name), written.ref)

    def publish(self, nodes: Mapping[bytes, Node], nested: Collection[bytes] = (), **fields: Any) -> Manifest:
        """Let the whole trunk be *nodes*, with catalogs of their own at *nested*; *fields* are of the manifest."""
        before = self.store.read_file(MANIFEST)
        trunk = self._write(tree(nodes), nested, {"TTL": "240"})
        self.manifest = replace(
            self.manifest,
            root_hash=trunk.ref.digest,
            root_size=trunk.ref.size,
            revision=self.manifest.revision + 1,
            timestamp=self.manifest.timestamp + 1,
            certificate=self.put(self.keys.certificate_pem, Suffix.CERTIFICATE),
        )
        self.manifest = replace(self.manifest, **fields)
        self.store.replace_head(before, sign_manifest(self.manifest, self.keys.repository_key), b"")
        return self.manifest

    def _write(self, root: Directory, nested: Collection[bytes], properties: Mapping[str, str] | None) -> WrittenTree:
        for path in nested:
            directory = find(root, path, self._catalogs.open_nested)
            assert isinstance(directory, Directory)
            directory.nested = True
        return write_tree(root, self._catalogs, AS_MARKED, properties)
