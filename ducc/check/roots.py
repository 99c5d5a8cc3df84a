"""What stands above all catalogs: the manifest, who signed it, the tags, the reflog."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import Certificate

from ducc.catalog.history import BadHistory, Branch, History
from ducc.catalog.reflog import BadReflog, Reflog
from ducc.check.findings import Fault, Finding, Report
from ducc.check.objects import FaultyObject, fetch_inflated
from ducc.cvmfs.manifest import BadManifest, Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import BadCertificate, load_certificate, verify_letter
from ducc.cvmfs.whitelist import (
    BadWhitelist,
    Whitelist,
    WhitelistExpired,
    WhitelistNotSigned,
    WhitelistOfAnotherRepository,
    fingerprint,
)
from ducc.storage.base import MANIFEST, REFLOG, WHITELIST, ObjectStore

SOON = timedelta(days=7)
_REREADINGS = 5  # a publisher may be at work
_TRUNK = "trunk"


class RootsCheck:
    """Reads and judges one repository's root files and root objects; all findings go to *report*."""

    def __init__(self, store: ObjectStore, fqrn: str, report: Report) -> None:
        self._store, self._fqrn, self._report = store, fqrn, report
        self._raw = b""
        self._raw_reflog: bytes | None = None

    def read_manifest(self) -> Manifest | None:
        """The manifest, if there is one that can be read; whether it is to be believed is the next question."""
        raw = self._store.read_file(MANIFEST)
        for _ in range(_REREADINGS):  # until the reflog is the one that belongs to the manifest
            self._raw_reflog = self._store.read_file(REFLOG)
            before, raw = raw, self._store.read_file(MANIFEST)
            if raw == before:
                break
        if raw is None:
            self._find(Fault.MANIFEST_MISSING, MANIFEST, "there is none")
            return None
        self._raw = raw
        try:
            manifest = Manifest.parse(raw)
        except BadManifest as error:
            self._find(Fault.MANIFEST_MALFORMED, MANIFEST, str(error))
            return None
        if manifest.fqrn != self._fqrn:
            self._find(Fault.MANIFEST_REPOSITORY, MANIFEST, f"it is of {manifest.fqrn}, not of {self._fqrn}")
        return manifest

    def check_signatures(self, manifest: Manifest, masters: Sequence[RSAPublicKey], now: datetime) -> None:
        """Follow the chain: manifest, certificate, whitelist, master key; without *masters* not to its end."""
        certificate = self._certificate(manifest)
        if certificate is not None:
            try:
                verify_letter(self._raw, certificate, self._fqrn)
            except BadManifest as error:
                self._find(Fault.MANIFEST_SIGNATURE, MANIFEST, str(error))
        whitelist = self._whitelist(masters, now)
        if whitelist is not None and certificate is not None and not whitelist.allows(certificate):
            text = f"certificate {fingerprint(certificate)} is not listed"
            self._find(Fault.CERTIFICATE_UNLISTED, WHITELIST, text)

    def check_metainfo(self, manifest: Manifest) -> None:
        if manifest.metainfo is None:
            return
        data = self._root_object(manifest.metainfo, Suffix.METAINFO, "metainfo")
        try:
            if data is not None and not isinstance(json.loads(data), dict):
                raise ValueError("not an object")
        except ValueError as error:
            self._find(Fault.METAINFO_MALFORMED, "metainfo", str(error))

    def read_history(self, manifest: Manifest) -> History | None:
        """The tags, if there are any."""
        if manifest.history is None:
            return None
        data = self._root_object(manifest.history, Suffix.HISTORY, "tags")
        if data is None:
            return None
        try:
            history = History.from_bytes(data)
        except BadHistory as error:
            self._find(Fault.HISTORY_UNREADABLE, "tags", str(error))
            return None
        self._check_history(manifest, history)
        return history

    def read_reflog(self, manifest: Manifest) -> Reflog | None:
        if self._raw_reflog is None:
            self._find(Fault.REFLOG_MISSING, REFLOG, "there is none")
            return None
        try:
            reflog = Reflog.from_bytes(self._raw_reflog)
        except BadReflog as error:
            self._find(Fault.REFLOG_UNREADABLE, REFLOG, str(error))
            return None
        if reflog.fqrn != self._fqrn:
            self._find(Fault.REFLOG_REPOSITORY, REFLOG, f"it is of {reflog.fqrn!r}")
        if manifest.reflog not in (None, hashlib.sha1(self._raw_reflog).digest()):
            self._find(Fault.REFLOG_CHECKSUM, REFLOG, "it is not the one that the manifest was signed with")
        for what, digest in _named_roots(manifest).items():
            if digest is not None and digest not in reflog:
                self._find(Fault.REFLOG_UNLISTED, REFLOG, f"the {what} {digest.hex()} is not listed")
        return reflog

    def _certificate(self, manifest: Manifest) -> Certificate | None:
        if manifest.certificate is None:
            self._find(Fault.CERTIFICATE_MISSING, MANIFEST, "it names no certificate")
            return None
        pem = self._root_object(manifest.certificate, Suffix.CERTIFICATE, "certificate")
        try:
            return None if pem is None else load_certificate(pem)
        except BadCertificate as error:
            self._find(Fault.CERTIFICATE_UNUSABLE, "certificate", str(error))
            return None

    def _whitelist(self, masters: Sequence[RSAPublicKey], now: datetime) -> Whitelist | None:
        raw = self._store.read_file(WHITELIST)
        if raw is None:
            self._find(Fault.WHITELIST_MISSING, WHITELIST, "there is none")
            return None
        try:
            whitelist = Whitelist.parse(raw)
        except BadWhitelist as error:
            self._find(Fault.WHITELIST_MALFORMED, WHITELIST, str(error))
            return None
        if not masters:
            self._find(Fault.MASTER_KEY_UNKNOWN, WHITELIST, "no master key was given to verify it with")
        try:
            Whitelist.verify(raw, masters, self._fqrn, now)
        except WhitelistOfAnotherRepository as error:
            self._find(Fault.WHITELIST_REPOSITORY, WHITELIST, str(error))
        except WhitelistNotSigned as error:
            if masters:
                self._find(Fault.WHITELIST_SIGNATURE, WHITELIST, str(error))
        except WhitelistExpired:
            pass  # told below, with or without a key
        except BadWhitelist as error:
            self._find(Fault.WHITELIST_MALFORMED, WHITELIST, str(error))
        self._check_expiry(whitelist, now)
        return whitelist

    def _check_expiry(self, whitelist: Whitelist, now: datetime) -> None:
        if whitelist.is_expired(now):
            self._find(Fault.WHITELIST_EXPIRED, WHITELIST, str(WhitelistExpired(self._fqrn, whitelist.expires, now)))
        elif whitelist.is_expired(now + SOON):
            self._find(Fault.WHITELIST_EXPIRES, WHITELIST, f"it expires at {whitelist.expires:%Y-%m-%d %H:00} UTC")

    def _check_history(self, manifest: Manifest, history: History) -> None:
        if history.fqrn != self._fqrn:
            self._find(Fault.HISTORY_REPOSITORY, "tags", f"they are of {history.fqrn!r}")
        trunk = history.get(_TRUNK)
        if trunk is None or trunk.hash != manifest.root_hash:
            self._find(Fault.HISTORY_TRUNK, "tags", f"`{_TRUNK}` is not the root catalog that the manifest names")
        branches = {branch.name: branch for branch in history.branches}
        for tag in history.tags():
            if tag.branch not in branches:
                self._find(Fault.HISTORY_BRANCH, "tags", f"tag {tag.name!r} is on branch {tag.branch!r}, which is none")
            elif tag.branch and tag.revision < branches[tag.branch].initial_revision:
                self._find(Fault.HISTORY_BRANCH, "tags", f"tag {tag.name!r} is older than its branch {tag.branch!r}")
        for name in branches.keys() - {tag.branch for tag in history.tags()} - {""}:
            self._find(Fault.HISTORY_BRANCH, "tags", f"branch {name!r} has no tag")
        for name in branches:
            if not _reaches_trunk(name, branches):
                self._find(Fault.HISTORY_BRANCH, "tags", f"branch {name!r} does not come from the trunk")

    def _root_object(self, digest: bytes, suffix: Suffix, what: str) -> bytes | None:
        try:
            return fetch_inflated(self._store, ObjectName(digest, suffix))
        except FaultyObject as fault:
            self._find(fault.fault, what, fault.text)
            return None

    def _find(self, fault: Fault, where: str, text: str) -> None:
        self._report(Finding(fault, where.encode(), text))


def _named_roots(manifest: Manifest) -> dict[str, bytes | None]:
    return {
        "root catalog": manifest.root_hash,
        "certificate": manifest.certificate,
        "tag database": manifest.history,
        "metainfo": manifest.metainfo,
    }


def _reaches_trunk(name: str, branches: Mapping[str, Branch]) -> bool:
    for _ in branches:
        if name == "":
            return True
        branch = branches.get(name)
        if branch is None or branch.parent is None:
            return False
        name = branch.parent
    return name == ""
