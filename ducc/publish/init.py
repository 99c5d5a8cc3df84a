"""The first revision: an empty, signed repository.

Everything that can fail for want of space or rights is tried before the keys are written, and the manifest comes last:
an interrupted attempt leaves no repository, and at most keys that signed nothing.
"""

import stat
from dataclasses import dataclass
from datetime import datetime

from ducc.catalog.history import History, Tag
from ducc.catalog.reflog import RefKind, Reflog
from ducc.catalog.schema import CatalogRef
from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import Directory
from ducc.catalog.writer import write_tree
from ducc.cvmfs.compression import compressor, inflate
from ducc.cvmfs.entry import Entry
from ducc.cvmfs.manifest import DEFAULT_TTL_SECONDS, Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import sign_manifest
from ducc.cvmfs.whitelist import Whitelist
from ducc.errors import BadInput
from ducc.publish.keys import KeyDirectory, SigningKeys, generate_keys, sign_whitelist
from ducc.publish.repository import NoRepository, compressor_for
from ducc.publish.settings import RepositorySettings
from ducc.storage.base import MANIFEST, MASTER_REPLICA, REFLOG, WHITELIST, ObjectStore

TRUNK = "trunk"  # the tag that stock tools keep on the current revision
_FIRST = 1
_ROOT_FILES = (MANIFEST, REFLOG, WHITELIST, MASTER_REPLICA)


class RepositoryExists(BadInput):
    """There is something already where a repository should be made."""

    def __init__(self, fqrn: str, file: str) -> None:
        super().__init__(f"{fqrn}: there is a repository here already (its {file}); it is not overwritten")


@dataclass(frozen=True, slots=True)
class _Roots:
    """The root objects of the first revision, as the manifest and the reflog name them."""

    catalog: CatalogRef
    certificate: bytes
    metainfo: bytes
    history: bytes


def init_repository(
    store: ObjectStore, key_files: KeyDirectory, settings: RepositorySettings, now: datetime
) -> Manifest:
    """Make keys and revision 1, and return its manifest. Neither an existing repository nor keys are touched."""
    key_files.require_none()
    for file in _ROOT_FILES:
        if store.read_file(file) is not None:
            raise RepositoryExists(key_files.fqrn, file)
    keys, master = generate_keys(key_files.fqrn, now)
    timestamp = int(now.timestamp())
    with store.session():
        roots = _put_roots(store, keys, settings, timestamp)
        store.flush()
        key_files.save(keys, master)
        store.write_file(WHITELIST, sign_whitelist(keys, master, now))
        store.write_file(MASTER_REPLICA, b"")
        reflog = _reflog(keys.fqrn, roots, timestamp)
        manifest = _manifest(keys.fqrn, roots, reflog, timestamp)
        store.replace_head(None, sign_manifest(manifest, keys.repository_key), reflog)
    return manifest


def renew_whitelist(store: ObjectStore, key_files: KeyDirectory, now: datetime, days: int) -> Whitelist:
    """Let the repository's certificate sign for *days* more; needs the master key, changes nothing else."""
    if store.read_file(MANIFEST) is None:
        raise NoRepository(f"{key_files.fqrn}: no repository of this name in the store; `ducc init` makes one")
    raw = sign_whitelist(key_files.load(), key_files.load_master_key(), now, days)
    store.write_file(WHITELIST, raw)
    return Whitelist.parse(raw)


def _put_roots(store: ObjectStore, keys: SigningKeys, settings: RepositorySettings, timestamp: int) -> _Roots:
    compress = compressor(settings.compressor)

    def put(data: bytes, suffix: Suffix) -> bytes:
        stored = compressor_for(suffix, compress)(data)
        name = ObjectName.of(stored, suffix)
        store.put(name, stored)
        return name.digest

    catalogs = CatalogStore(store, compress, inflate)
    properties = {"revision": str(_FIRST), "last_modified": str(timestamp), "TTL": str(DEFAULT_TTL_SECONDS)}
    root = Directory(Entry(b"", stat.S_IFDIR | 0o755, size=4096, mtime=timestamp))
    catalog = write_tree(root, catalogs, settings.split_policy, properties).ref
    history = History.new(keys.fqrn)
    history.set_tag(Tag(TRUNK, catalog.digest, _FIRST, timestamp, size=catalog.size))
    return _Roots(
        catalog,
        put(keys.certificate_pem, Suffix.CERTIFICATE),
        put(settings.to_metainfo(), Suffix.METAINFO),
        put(history.to_bytes(), Suffix.HISTORY),
    )


def _reflog(fqrn: str, roots: _Roots, timestamp: int) -> bytes:
    reflog = Reflog.new(fqrn)
    reflog.add(roots.catalog.digest, RefKind.CATALOG, timestamp)
    reflog.add(roots.certificate, RefKind.CERTIFICATE, timestamp)
    reflog.add(roots.metainfo, RefKind.METAINFO, timestamp)
    reflog.add(roots.history, RefKind.HISTORY, timestamp)
    return reflog.to_bytes()


def _manifest(fqrn: str, roots: _Roots, reflog: bytes, timestamp: int) -> Manifest:
    return Manifest(
        root_hash=roots.catalog.digest,
        root_size=roots.catalog.size,
        ttl_seconds=DEFAULT_TTL_SECONDS,
        revision=_FIRST,
        timestamp=timestamp,
        fqrn=fqrn,
        certificate=roots.certificate,
        history=roots.history,
        metainfo=roots.metainfo,
        reflog=ObjectName.of(reflog).digest,
    )
