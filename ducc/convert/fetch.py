"""Where a layer is fetched and ingested: in this process, or by whatever stands behind an `Executor`.

*Layer wish → layer tree* is a function of plain data. Processes and machines that run it share nothing but
the store and the registry: neither the layer's bytes nor the objects pass through the executor.
"""

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ducc.convert.observer import Observer, Unobserved
from ducc.convert.spool import Spool, SpooledBlob
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.image.manifest import Descriptor
from ducc.image.reference import Reference
from ducc.ingest.index import ContentIndex
from ducc.ingest.layer import Ingest, LayerTree
from ducc.layer.stream import VerifiedStream
from ducc.publish.repository import Repository
from ducc.registry.client import Registry
from ducc.registry.open import open_registry
from ducc.storage.open import open_store
from ducc.transport import TemporaryStatus, Unreachable


@dataclass(frozen=True, slots=True)
class LayerWish:
    """A layer as one image wants it: what its manifest and config say, and by whose name its registry is asked."""

    reference: Reference
    descriptor: Descriptor
    diff_id: Digest
    credentials: str | None = None

    @property
    def source(self) -> tuple[str, str, Descriptor, str | None]:
        """What two images must have in common for one to fail where the other does."""
        return self.reference.registry, self.reference.repository, self.descriptor, self.credentials


FetchLayer = Callable[[LayerWish], LayerTree]


@dataclass(frozen=True, slots=True)
class FetchHere:
    """Fetches layers in this process, into a store whose session is open."""

    registry: Registry
    spool: Spool
    ingest: Ingest
    observer: Observer

    def __call__(self, wanted: LayerWish) -> LayerTree:
        """Fetch and ingest one layer; what an earlier attempt left in the spool is fetched anew if it is of no use."""
        with self._open(wanted) as blob:
            try:
                return self._ingest(blob, wanted)
            except (Unreachable, TemporaryStatus):
                raise  # what has come stays, for the next attempt
            except DuccError:
                blob.discard()
                if not blob.reused:
                    raise
        with self._open(wanted) as blob:
            return self._ingest(blob, wanted)

    def _open(self, wanted: LayerWish) -> SpooledBlob:
        registry, layer = self.registry.using(wanted.credentials), wanted.descriptor
        return self.spool.open(layer.digest, layer.size, lambda at: registry.open_blob(wanted.reference, layer, at))

    def _ingest(self, blob: SpooledBlob, wanted: LayerWish) -> LayerTree:
        layer = wanted.descriptor
        with self.observer.layer(layer.digest, layer.size) as seen:
            stream = VerifiedStream(seen.counting(blob), layer.digest, layer.size, f"layer {layer.digest}")
            return self.ingest.layer(stream, wanted.diff_id)


def ingest_into(repository: Repository, index: ContentIndex, workers: Executor) -> Ingest:
    """The way into a repository for layers, by its own settings."""
    return Ingest(
        repository.store, repository.catalogs, repository.compress, index, workers, repository.settings.split_policy
    )


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker needs to know of the repository that it works for; plain data.

    *registries* says how registries are asked: a file that the worker reads itself, as it does its environment and its
    user's logins, so that no password is part of a task.
    """

    storage: str
    fqrn: str
    cache: Path
    workers: int
    registries: Path | None = None

    def spool(self) -> Spool:
        """Open the spool of blobs for the repository."""
        return Spool(self.cache / self.fqrn / "blobs")

    def content_index(self, compressor: str) -> ContentIndex:
        """Open the content index that goes with the repository."""
        return ContentIndex(self.cache / self.fqrn / f"contents-{compressor}.sqlite")


@dataclass(frozen=True, slots=True)
class FetchElsewhere:
    """Lets an executor's workers fetch layers."""

    executor: Executor
    workplace: Workplace
    observer: Observer

    def __call__(self, wanted: LayerWish) -> LayerTree:
        layer = wanted.descriptor
        with self.observer.layer(layer.digest, layer.size) as seen:
            tree = self.executor.submit(fetch_layer, self.workplace, wanted).result()
            seen.advance(layer.size)
            return tree


def fetch_layer(workplace: Workplace, wanted: LayerWish) -> LayerTree:
    """Fetch and ingest one layer; when this returns, all that its tree refers to is durable and visible."""
    repository = Repository(workplace.fqrn, open_store(workplace.storage, workplace.fqrn))
    index = workplace.content_index(repository.settings.compressor)
    try:
        with repository.store.session(), ThreadPoolExecutor(workplace.workers, "store") as workers:
            ingest = ingest_into(repository, index, workers)
            registry = open_registry(workplace.registries, os.environ)
            tree = FetchHere(registry, workplace.spool(), ingest, Unobserved())(wanted)
            repository.store.flush()
            return tree
    finally:
        index.close()
