"""The walk: from the manifest and the tags through nested and bound catalogs to every object.

Each catalog is judged once, however often it is bound or shared, and each object looked at once. Unlike the stock
check, this one follows binds: most of a repository of images lies behind them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ducc.catalog.history import History
from ducc.catalog.reflog import Reflog
from ducc.check.catalog import CatalogReport, Reference, check_catalog
from ducc.check.findings import Fault, Finding, Report
from ducc.check.mounts import check_mounts
from ducc.check.objects import FaultyObject, check_contents, check_existence, fetch_inflated
from ducc.check.roots import RootsCheck
from ducc.cvmfs.manifest import Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.storage.base import ObjectStore

_CATALOGS_AT_ONCE = 64
_REFERENCES_AT_ONCE = 512

T = TypeVar("T")


@dataclass(slots=True)
class Seen:
    """How much was looked at."""

    catalogs: int = 0
    rows: int = 0
    objects: int = 0


def check_repository(
    store: ObjectStore,
    fqrn: str,
    masters: Sequence[RSAPublicKey],
    now: datetime,
    report: Report,
    *,
    data: bool = False,
    workers: int = 4,
) -> Seen:
    """Tell *report* everything that is wrong, as it is found; in the same order every time.

    *masters*: the public keys that may have signed the whitelist. With *data* every object is read and verified,
    else only looked for.
    """
    roots = RootsCheck(store, fqrn, report)
    manifest = roots.read_manifest()
    if manifest is None:
        return Seen()
    roots.check_signatures(manifest, masters, now)
    roots.check_metainfo(manifest)
    history = roots.read_history(manifest)
    reflog = roots.read_reflog(manifest)
    with ThreadPoolExecutor(workers) as pool:
        walk = Walk(store, report, pool, check_contents if data else check_existence)
        walk.visit([Arrival(manifest.root_hash, b"")])
        walk.visit([Arrival(tag.hash, f"(tag {tag.name})".encode()) for tag in (history.tags() if history else ())])
    walk.check_meetings()
    walk.check_trunk(manifest)
    walk.check_kept(history, reflog)
    return walk.seen


class Arrival(NamedTuple):
    """A catalog and the path by which the walk came to it."""

    digest: bytes
    path: bytes


@dataclass(slots=True)
class Visited:
    """A catalog's report and the path by which the walk came to it first."""

    path: bytes
    report: CatalogReport

    def located(self, path: bytes) -> bytes:
        """The path in the repository of a path in the catalog's coordinates."""
        prefix = self.report.prefix
        if path.startswith(b"?") or not path.startswith(prefix):
            return self.path + b"/" + path
        return self.path + path[len(prefix) :]


class Walk:
    """Visits catalogs, each once, and remembers what they said, for judging where they meet."""

    def __init__(
        self,
        store: ObjectStore,
        report: Report,
        pool: Executor,
        check_objects: Callable[[ObjectStore, Iterable[Reference]], Iterator[Finding]],
    ) -> None:
        self.seen = Seen()
        self._store, self._report, self._pool, self._check_objects = store, report, pool, check_objects
        self._arrived: set[bytes] = set()
        self._visited: dict[bytes, Visited] = {}
        self._referred: set[tuple[bytes, Suffix, int, int]] = set()

    def visit(self, arrivals: list[Arrival]) -> None:
        """Judge these catalogs, and all that can be reached from them; not those that were judged before."""
        while arrivals:
            fresh = [arrival for arrival in dict.fromkeys(arrivals) if self._is_first(arrival)]
            arrivals = []
            for some in _slices(fresh, _CATALOGS_AT_ONCE):
                outcomes = zip(some, self._pool.map(self._judge, some), strict=True)
                visited = [one for one in (self._take(*outcome) for outcome in outcomes) if one is not None]
                self._check_references(visited)
                arrivals.extend(chain.from_iterable(map(_onward, visited)))

    def check_meetings(self) -> None:
        """Judge all places where one catalog continues another."""
        reports = {digest: visited.report for digest, visited in self._visited.items()}
        for visited in self._visited.values():
            for finding in check_mounts(visited.report, reports):
                self._report(finding._replace(path=visited.located(finding.path)))

    def check_trunk(self, manifest: Manifest) -> None:
        """Is the root catalog the one that the manifest describes?"""
        trunk = self._visited.get(manifest.root_hash)
        if trunk is None:
            return
        if manifest.root_size not in (0, trunk.report.size):
            text = f"the root catalog has {trunk.report.size} bytes, the manifest says {manifest.root_size}"
            self._report(Finding(Fault.MANIFEST_SIZE, b"", text))
        if trunk.report.revision != str(manifest.revision).encode():
            text = f"the root catalog is revision {trunk.report.revision!r}, the manifest says {manifest.revision}"
            self._report(Finding(Fault.MANIFEST_REVISION, b"", text))

    def check_kept(self, history: History | None, reflog: Reflog | None) -> None:
        """Has every bound tree a tag, which keeps it alive, and a line in the reflog, so that it can be collected?"""
        tags = {tag.hash for tag in history.tags()} if history else set()
        bound = {
            mount.ref.digest: visited.located(mount.path)
            for visited in reversed(self._visited.values())
            for mount in visited.report.mounts
            if mount.is_bind
        }
        for digest, path in bound.items():
            if digest not in tags:
                self._report(Finding(Fault.BIND_UNTAGGED, path, f"tree {digest.hex()} has no tag"))
        if reflog is not None:
            for digest in sorted((tags | bound.keys()) - {ref.digest for ref in reflog.refs()}):
                path = bound.get(digest, b"tags")
                self._report(Finding(Fault.REFLOG_TREE_UNLISTED, path, f"tree {digest.hex()} is not in the reflog"))

    def _is_first(self, arrival: Arrival) -> bool:
        is_first = arrival.digest not in self._arrived
        self._arrived.add(arrival.digest)
        return is_first

    def _judge(self, arrival: Arrival) -> CatalogReport | FaultyObject:
        try:
            return check_catalog(fetch_inflated(self._store, ObjectName(arrival.digest, Suffix.CATALOG)))
        except FaultyObject as fault:
            return fault

    def _take(self, arrival: Arrival, outcome: CatalogReport | FaultyObject) -> Visited | None:
        """Tell what was found in a catalog, and keep the report."""
        if isinstance(outcome, FaultyObject):
            self._report(Finding(outcome.fault, arrival.path, outcome.text))
            return None
        visited = self._visited[arrival.digest] = Visited(arrival.path, outcome)
        for finding in outcome.findings:
            self._report(finding._replace(path=visited.located(finding.path)))
        self.seen.catalogs += 1
        self.seen.rows += outcome.rows
        return visited

    def _check_references(self, visited: list[Visited]) -> None:
        """Judge the objects that these catalogs refer to and no catalog before; then forget the references."""
        fresh: list[Reference] = []
        for one in visited:
            for reference in one.report.references:
                if (known := reference[:4]) not in self._referred:
                    self._referred.add(known)
                    fresh.append(reference._replace(path=one.located(reference.path)))
            one.report.references.clear()
        self.seen.objects += len(fresh)
        for findings in self._pool.map(self._judge_objects, _slices(fresh, _REFERENCES_AT_ONCE)):
            for finding in findings:
                self._report(finding)

    def _judge_objects(self, references: list[Reference]) -> list[Finding]:
        return list(self._check_objects(self._store, references))


def _onward(visited: Visited) -> Iterator[Arrival]:
    """Where the walk can go from a catalog."""
    for mount in visited.report.mounts:
        yield Arrival(mount.ref.digest, visited.located(mount.path))


def _slices(items: list[T], length: int) -> Iterator[list[T]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]
