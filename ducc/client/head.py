"""The newest state of a repository that may be believed: manifest, certificate and whitelist, verified together."""

import logging
import os
from collections.abc import Callable, Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ducc.client.fetch import Fetcher, Wanted
from ducc.cvmfs.manifest import Manifest, ManifestMalformed
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import verify_manifest
from ducc.errors import DuccError
from ducc.storage.base import MANIFEST, WHITELIST, ReadableStore

log = logging.getLogger(__name__)


class NoRepository(DuccError):
    """The store answers, but has no such repository, or not all of it."""

    exit_code = 53

    def __init__(self, fqrn: str, missing: str) -> None:
        super().__init__(f"there is no repository {fqrn} here: {missing} is missing")


class Head:
    """Asks one store for one repository's manifest. *clock* tells the time by which whitelists expire."""

    def __init__(
        self,
        fqrn: str,
        store: ReadableStore,
        fetcher: Fetcher,
        master_keys: Sequence[RSAPublicKey],
        clock: Callable[[], datetime],
    ) -> None:
        self._fqrn, self._store, self._fetcher = fqrn, store, fetcher
        self._master_keys, self._clock = master_keys, clock

    def first(self) -> Manifest:
        """The manifest as it is now; raises what makes it unbelievable."""
        return self._verified(self._read(MANIFEST), 0)

    def newer(self, known: Manifest) -> Manifest | None:
        """A manifest that is to follow *known*, if there is one; never one that would lead back."""
        raw = self._read(MANIFEST)
        if Manifest.parse(raw).root_hash == known.root_hash:
            return None
        found = self._verified(raw, known.timestamp)
        if found.revision <= known.revision:
            log.warning(
                "server offers another catalog under an old revision, staying: fqrn=%s offered=%d mounted=%d",
                self._fqrn, found.revision, known.revision,
            )  # fmt: skip
            return None
        return found

    def _verified(self, raw: bytes, newest_seen: int) -> Manifest:
        certificate = Manifest.parse(raw).certificate
        if certificate is None:
            raise ManifestMalformed("it names no certificate")
        return verify_manifest(
            raw, self._content(certificate), self._read(WHITELIST), self._master_keys,
            self._fqrn, self._clock(), newest_seen,
        )  # fmt: skip

    def _content(self, certificate: bytes) -> bytes:
        content = self._fetcher.content(Wanted(ObjectName(certificate, Suffix.CERTIFICATE), None))
        return os.pread(content.descriptor, os.fstat(content.descriptor).st_size, 0)

    def _read(self, name: str) -> bytes:
        raw = self._store.read_file(name)
        if raw is None:
            raise NoRepository(self._fqrn, name)
        return raw
