"""The newest state of a repository that may be believed: manifest, certificate and whitelist, verified together.

What was believed last is remembered on this machine. Nothing older is believed afterwards, and where no server can be
asked it is shown, off-line, as far as its objects are here.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ducc.catalog.history import History
from ducc.client.blacklist import Blacklist
from ducc.client.breadcrumb import Breadcrumb, Breadcrumbs
from ducc.client.fetch import Fetcher, Wanted
from ducc.client.pin import NoSuchRevision, Pin
from ducc.cvmfs.manifest import Manifest, ManifestMalformed, WrongRepository
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import verify_manifest
from ducc.cvmfs.whitelist import Whitelist
from ducc.errors import DuccError
from ducc.storage.base import MANIFEST, WHITELIST, ReadableStore, StoreUnavailable

log = logging.getLogger(__name__)


class NoRepository(DuccError):
    """The store answers, but has no such repository, or not all of it."""

    exit_code = 53

    def __init__(self, fqrn: str, missing: str) -> None:
        super().__init__(f"there is no repository {fqrn} here: {missing} is missing")


@runtime_checkable
class CheckingFiles(Protocol):
    """A store that knows several ways to a root file, and goes on until the bytes are right."""

    def read_file_checked(self, name: str, check: Callable[[bytes], None]) -> bytes | None:
        """Return bytes that *check* lets pass; it raises what is wrong with them."""


class Head:
    """Asks one store for one repository's manifest. *clock* tells the time by which whitelists expire.

    `problem` says why there was no answer when it was last asked for; it is empty after a good one. `offered` is what
    the last question for something newer led to, `asked_at` when that was begun, and `answered_as_of` when the last one
    was begun that has come to its end, as `time.monotonic` tells it.
    """

    def __init__(
        self,
        fqrn: str,
        store: ReadableStore,
        fetcher: Fetcher,
        master_keys: Sequence[RSAPublicKey],
        clock: Callable[[], datetime],
        *,
        breadcrumbs: Breadcrumbs | None = None,
        pin: Pin | None = None,
        blacklist: Blacklist | None = None,
    ) -> None:
        self._fqrn, self._store, self._fetcher = fqrn, store, fetcher
        self._master_keys, self._clock = master_keys, clock
        self._breadcrumbs, self._pin, self._blacklist = breadcrumbs, pin, blacklist or Blacklist()
        self.problem = ""
        self.asked_at = self.answered_as_of = time.monotonic()
        self.offered: Manifest | None = None

    @property
    def is_pinned(self) -> bool:
        """Is it to stay at one revision?"""
        return self._pin is not None

    def first(self) -> Manifest:
        """The state to begin with; raises what makes it unbelievable.

        That is the manifest as it is now; the state that was believed last, if no server answers or the manifest is
        older; or the revision to stay at.
        """
        if self._pin and self._pin.root_hash is not None:
            return Breadcrumb(self._pin.root_hash, 0, 0).manifest(self._fqrn)
        crumb = self._breadcrumbs.read() if self._breadcrumbs else None
        try:
            found = self._verified(self._read_manifest(), 0)
        except StoreUnavailable as error:
            if crumb is None or self._pin:
                raise
            self.problem = str(error)
            log.warning("off-line, showing what was seen last: fqrn=%s revision=%d reason=%s",
                        self._fqrn, crumb.revision, error)  # fmt: skip
            return crumb.manifest(self._fqrn)
        if self._pin:
            return self._pinned(self._pin, found)
        if crumb and crumb.root_hash != found.root_hash and _leads_back(found, crumb):
            self._refuse(found, crumb.revision)
            return crumb.manifest(self._fqrn)
        self._remember(found)
        return found

    def newer(self, known: Manifest, pushed: bytes | None = None) -> Manifest | None:
        """A manifest that is to follow *known*, if there is one; never one that would lead back.

        A server is asked, unless it has *pushed* one.
        """
        self.offered, self.asked_at = None, time.monotonic()
        try:
            self.offered = None if self._pin else self._newer(known, pushed or self._read_manifest())
            self.problem = ""
        except DuccError as error:
            self.problem = str(error)
            raise
        finally:
            self.answered_as_of = self.asked_at
        return self.offered

    def _newer(self, known: Manifest, raw: bytes) -> Manifest | None:
        if Manifest.parse(raw).root_hash == known.root_hash:
            return None
        found = self._verified(raw, known.timestamp)
        if _leads_back(found, Breadcrumb.of(known)):
            self._refuse(found, known.revision)
            return None
        self._remember(found)
        return found

    def _pinned(self, pin: Pin, newest: Manifest) -> Manifest:
        """The state that the tag database, as the newest manifest names it, has under the pin's name."""
        if newest.history is None:
            raise NoSuchRevision(self._fqrn, f"{pin}, since it has no tags")
        tag = pin.find(History.from_bytes(self._content(newest.history, Suffix.HISTORY)))
        return Breadcrumb(tag.hash, tag.timestamp, tag.revision).manifest(self._fqrn)

    def _remember(self, manifest: Manifest) -> None:
        if self._breadcrumbs:
            self._breadcrumbs.drop(Breadcrumb.of(manifest))

    def _refuse(self, offered: Manifest, known_revision: int) -> None:
        log.warning(
            "server offers another catalog under an old revision, staying: fqrn=%s offered=%d known=%d",
            self._fqrn, offered.revision, known_revision,
        )  # fmt: skip

    def _verified(self, raw: bytes, newest_seen: int) -> Manifest:
        certificate = Manifest.parse(raw).certificate
        if certificate is None:
            raise ManifestMalformed("it names no certificate")
        pem = self._content(certificate, Suffix.CERTIFICATE)
        manifest = verify_manifest(
            raw, pem, self._read(WHITELIST, self._allows), self._master_keys, self._fqrn, self._clock(), newest_seen
        )
        self._blacklist.check(manifest, pem)
        return manifest

    def _content(self, digest: bytes, suffix: Suffix) -> bytes:
        return bytes(self._fetcher.content(Wanted(ObjectName(digest, suffix), None)).whole())

    def _read_manifest(self) -> bytes:
        return self._read(MANIFEST, self._is_ours)

    def _is_ours(self, raw: bytes) -> None:
        """Raise what tells the repository's manifest from, say, a web page; another server may have the right one."""
        found = Manifest.parse(raw).fqrn
        if found != self._fqrn:
            raise WrongRepository(self._fqrn, found)

    def _allows(self, raw: bytes) -> None:
        """Raise what is wrong with a whitelist; a server that lags behind has an expired one, another a good one."""
        Whitelist.verify(raw, self._master_keys, self._fqrn, self._clock())

    def _read(self, name: str, check: Callable[[bytes], None] | None = None) -> bytes:
        if check and isinstance(self._store, CheckingFiles):
            raw = self._store.read_file_checked(name, check)
        else:
            raw = self._store.read_file(name)
        if raw is None:
            raise NoRepository(self._fqrn, name)
        return raw


def _leads_back(found: Manifest, known: Breadcrumb) -> bool:
    return found.revision <= known.revision or found.timestamp < known.timestamp
