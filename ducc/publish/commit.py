"""THE write order: objects → nested catalogs, leaf first → trees → trunk up to the root → tags → reflog → manifest.

Each step only adds names, and nothing refers to what was not written before, so a publisher may stop anywhere: what
it leaves are objects that nobody refers to. The manifest is swapped only if it is still the one that the changes were
applied to; otherwise they are applied to the new one. So any number of publishers need no lock on each other.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ducc.catalog.history import History, Tag
from ducc.catalog.reflog import RefKind, Reflog
from ducc.catalog.schema import CatalogRef
from ducc.catalog.split import SplitPolicy
from ducc.catalog.writer import WrittenTree, write_tree
from ducc.cvmfs.manifest import Manifest
from ducc.cvmfs.objectname import Suffix
from ducc.cvmfs.signature import sign_manifest, verify_letter
from ducc.errors import DuccError
from ducc.publish.changes import BindTree, Change, apply
from ducc.publish.keys import SigningKeys
from ducc.publish.repository import Head, Repository
from ducc.storage.base import HeadMoved

TRUNK_POLICY = SplitPolicy(keep_all=True)
ATTEMPTS = 50  # how often another publisher may be faster

_KINDS = {
    "certificate": RefKind.CERTIFICATE,
    "history": RefKind.HISTORY,
    "metainfo": RefKind.METAINFO,
}


class ForeignHead(DuccError):
    """The newest revision was signed by somebody else; to publish on top of it would be to vouch for it."""

    exit_code = 69

    def __init__(self, fqrn: str) -> None:
        super().__init__(f"{fqrn}: its newest revision is not signed with these keys; nothing was published")


def commit(
    repository: Repository, keys: SigningKeys, changes: Sequence[Change], clock: Callable[[], float] = time.time
) -> Head:
    """Publish *changes* as one new revision, and return it. All trees that they bind were written before.

    Raises `ForeignHead`, and `HeadMoved` only when other publishers were faster `ATTEMPTS` times in a row.
    """
    return commit_decided(repository, keys, lambda base: changes, clock)


def commit_decided(
    repository: Repository,
    keys: SigningKeys,
    decide: Callable[[Head], Sequence[Change] | None],
    clock: Callable[[], float] = time.time,
) -> Head:
    """As `commit`, for changes that hold for one revision only: they are decided anew for each that they are tried on.

    Where None is decided no revision is made, and the head is returned as it is.
    """
    for _ in range(ATTEMPTS):
        base = repository.head()
        if base.certificate_pem != keys.certificate_pem:
            raise ForeignHead(repository.fqrn)
        changes = decide(base)
        if changes is None:
            return base
        now = max(int(clock()), base.manifest.timestamp)  # clients refuse a manifest older than one they have seen
        trunk = _write_trunk(repository, base, changes, now)
        try:
            return publish(repository, keys, base, trunk, published_trees(changes), now)
        except HeadMoved:
            continue
    raise HeadMoved(f"{repository.fqrn}: other publishers were faster {ATTEMPTS} times in a row; try again")


def published_trees(changes: Iterable[Change]) -> list[CatalogRef]:
    """The roots of all trees that *changes* bring, each once: they need tags to live."""
    refs = (change.tree.ref for change in changes if isinstance(change, BindTree))
    return list(dict.fromkeys(refs))


def _write_trunk(repository: Repository, base: Head, changes: Sequence[Change], now: int) -> WrittenTree:
    properties = {
        "revision": str(base.manifest.revision + 1),
        "previous_revision": str(base.root),
        "last_modified": str(now),
        "TTL": str(base.manifest.ttl_seconds),
    }
    return write_tree(apply(changes, repository, base, now), repository.catalogs, TRUNK_POLICY, properties)


def publish(
    repository: Repository, keys: SigningKeys, base: Head, trunk: WrittenTree, trees: Sequence[CatalogRef], now: int
) -> Head:
    """Make *trunk*, which is written, the revision after *base*. Raises `HeadMoved` if *base* is not the head."""
    manifest = replace(
        base.manifest,
        root_hash=trunk.ref.digest,
        root_size=trunk.ref.size,
        revision=base.manifest.revision + 1,
        timestamp=now,
        certificate=repository.put(keys.certificate_pem, Suffix.CERTIFICATE).digest,
    )
    history = repository.history(base.manifest)
    tag(history, manifest, trees)
    manifest = replace(manifest, history=repository.put(history.to_bytes(), Suffix.HISTORY).digest)
    reflog = repository.reflog()
    list_roots(reflog, manifest, trees)
    reflog_bytes = reflog.to_bytes()
    manifest = replace(manifest, reflog=hashlib.sha1(reflog_bytes).digest())
    raw = sign_manifest(manifest, keys.repository_key)
    verify_letter(raw, keys.certificate, repository.fqrn)
    repository.store.replace_head(base.raw, raw, reflog_bytes)
    return Head(raw, manifest, keys.certificate_pem)


def tag(history: History, manifest: Manifest, trees: Iterable[CatalogRef]) -> None:
    """Move the tags of the trunk, and give each new tree one, which keeps it through stock collection and copying."""
    if before := history.get("trunk"):
        history.set_tag(before._replace(name="trunk-previous"))
    history.set_tag(Tag("trunk", manifest.root_hash, manifest.revision, manifest.timestamp, "", manifest.root_size))
    for ref in trees:
        name = f"tree-{ref}"
        if history.get(name) is None:
            history.set_tag(Tag(name, ref.digest, 0, manifest.timestamp, "", ref.size))


def list_roots(reflog: Reflog, manifest: Manifest, trees: Iterable[CatalogRef]) -> None:
    """List every root object that *manifest* and the tags name."""
    for digest in (manifest.root_hash, *(ref.digest for ref in trees)):
        reflog.add(digest, RefKind.CATALOG, manifest.timestamp)
    for field, kind in _KINDS.items():
        if digest := getattr(manifest, field):
            reflog.add(digest, kind, manifest.timestamp)
