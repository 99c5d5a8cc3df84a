"""The published state of a repository, as a publisher reads it: verified, and then believed.

The repository is the database: what is published where is read back from here, and nowhere else.
"""

from dataclasses import dataclass

from ducc.catalog.history import History
from ducc.catalog.reflog import Reflog
from ducc.catalog.schema import CatalogRef
from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import Directory, Node, find
from ducc.cvmfs.compression import Compress, compressor, inflate, inflate_at_most
from ducc.cvmfs.entry import Entry
from ducc.cvmfs.manifest import Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import load_certificate, verify_letter
from ducc.errors import DuccError
from ducc.publish.settings import RepositorySettings
from ducc.storage.base import MANIFEST, REFLOG, ObjectStore

MAX_ROOT_OBJECT = 1 << 30  # bytes of a tag database, a certificate, a metainfo, inflated
_AS_STOCK = "zlib-6"
_COMPRESSED_AGAIN = (Suffix.CERTIFICATE, Suffix.METAINFO)


class NoRepository(DuccError):
    """There is no repository where one should be."""

    exit_code = 2


class ForgedObject(DuccError):
    """The store holds other bytes under an object's name than those that gave it the name."""

    exit_code = 67

    def __init__(self, name: ObjectName) -> None:
        super().__init__(f"{name}: the store holds other bytes under this name; run `ducc check --data`")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest published revision: the manifest's bytes, what they say, and the certificate that signed them."""

    raw: bytes
    manifest: Manifest
    certificate_pem: bytes

    @property
    def root(self) -> CatalogRef:
        return CatalogRef(self.manifest.root_hash, self.manifest.root_size)


class Repository:
    """One repository in one store."""

    def __init__(self, fqrn: str, store: ObjectStore) -> None:
        """Open the repository; raises `NoRepository` when the store has none of that name."""
        self.fqrn, self.store = fqrn, store
        self.settings = self._read_settings(self.head().manifest)
        self.compress: Compress = compressor(self.settings.compressor)
        self.catalogs = CatalogStore(store, self.compress, inflate)

    def head(self) -> Head:
        """Read the manifest that is published now; it is this repository's, and signed by the certificate it names."""
        raw = self.store.read_file(MANIFEST)
        if raw is None:
            raise NoRepository(f"{self.fqrn}: no repository of this name in the store; `ducc init` makes one")
        manifest = Manifest.parse(raw)
        if manifest.fqrn != self.fqrn:
            raise NoRepository(f"{self.fqrn}: the store holds another repository, {manifest.fqrn}")
        if manifest.certificate is None:
            raise NoRepository(f"{self.fqrn}: its manifest names no certificate")
        certificate_pem = self.read_root_object(ObjectName(manifest.certificate, Suffix.CERTIFICATE))
        verify_letter(raw, load_certificate(certificate_pem), self.fqrn)
        return Head(raw, manifest, certificate_pem)

    def tree(self, head: Head) -> Directory:
        """The trunk of a revision; nested catalogs are opened when somebody looks into them."""
        return self.catalogs.load(head.root)

    def find(self, head: Head, path: bytes) -> Node | None:
        """What stands at *path* in the trunk; binds are not entered."""
        return find(self.tree(head), path, self.catalogs.open_nested)

    def read(self, entry: Entry) -> bytes:
        """The content of a small (unchunked) file, verified."""
        assert entry.content is not None, entry.name
        name = ObjectName(entry.content)
        return inflate(self._verified(name), entry.size)

    def history(self, manifest: Manifest) -> History:
        if manifest.history is None:
            return History.new(self.fqrn)
        return History.from_bytes(self.read_root_object(ObjectName(manifest.history, Suffix.HISTORY)))

    def reflog(self) -> Reflog:
        raw = self.store.read_file(REFLOG)
        return Reflog.new(self.fqrn) if raw is None else Reflog.from_bytes(raw)

    def read_root_object(self, name: ObjectName) -> bytes:
        """A root object (tag database, certificate, metainfo), verified and inflated."""
        return inflate_at_most(self._verified(name), MAX_ROOT_OBJECT)

    def put(self, data: bytes, suffix: Suffix = Suffix.FILE) -> ObjectName:
        """Store *data* compressed, if it is not there, and return its name."""
        stored = compressor_for(suffix, self.compress)(data)
        name = ObjectName.of(stored, suffix)
        if not self.store.exists(name):
            self.store.put(name, stored)
        return name

    def _verified(self, name: ObjectName) -> bytes:
        stored = self.store.get(name)
        if ObjectName.of(stored, name.suffix) != name:
            raise ForgedObject(name)
        return stored

    def _read_settings(self, manifest: Manifest) -> RepositorySettings:
        if manifest.metainfo is None:
            return RepositorySettings()
        return RepositorySettings.from_metainfo(self.read_root_object(ObjectName(manifest.metainfo, Suffix.METAINFO)))


def compressor_for(suffix: Suffix, compress: Compress) -> Compress:
    """How objects of that kind are compressed where others are by *compress*.

    Stock replication inflates certificate and metainfo, and stores them under the same name as its own zlib compresses
    them: with any other compressor a replica would hold other bytes than the name says, and no client could mount it.
    """
    return compressor(_AS_STOCK) if suffix in _COMPRESSED_AGAIN else compress
