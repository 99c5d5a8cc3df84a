"""Where a layer is fetched and ingested: in this process, or by whatever stands behind an `Executor`.

*Image, layer, diff id → layer tree* is a function of plain data. Processes and machines that run it share nothing but
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
from ducc.registry.credentials import credentials_from_environment
from ducc.storage.open import open_store
from ducc.transport import Unreachable

FetchLayer = Callable[[Reference, Descriptor, Digest], LayerTree]


@dataclass(frozen=True, slots=True)
class FetchHere:
    """Fetches layers in this process, into a store whose session is open."""

    registry: Registry
    spool: Spool
    ingest: Ingest
    observer: Observer

    def __call__(self, reference: Reference, layer: Descriptor, diff_id: Digest) -> LayerTree:
        """Fetch and ingest one layer; what an earlier attempt left in the spool is fetched anew if it is of no use."""
        with self._open(reference, layer) as blob:
            try:
                return self._ingest(blob, layer, diff_id)
            except Unreachable:
                raise  # what has come stays, for the next attempt
            except DuccError:
                blob.discard()
                if not blob.reused:
                    raise
        with self._open(reference, layer) as blob:
            return self._ingest(blob, layer, diff_id)

    def _open(self, reference: Reference, layer: Descriptor) -> SpooledBlob:
        return self.spool.open(layer.digest, layer.size, lambda at: self.registry.open_blob(reference, layer, at))

    def _ingest(self, blob: SpooledBlob, layer: Descriptor, diff_id: Digest) -> LayerTree:
        with self.observer.layer(layer.digest, layer.size) as seen:
            stream = VerifiedStream(seen.counting(blob), layer.digest, layer.size, f"layer {layer.digest}")
            return self.ingest.layer(stream, diff_id)


def ingest_into(repository: Repository, index: ContentIndex, workers: Executor) -> Ingest:
    """The way into a repository for layers, by its own settings."""
    return Ingest(
        repository.store, repository.catalogs, repository.compress, index, workers, repository.settings.split_policy
    )


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker needs to know of the repository that it works for; plain data."""

    storage: str
    fqrn: str
    cache: Path
    workers: int

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

    def __call__(self, reference: Reference, layer: Descriptor, diff_id: Digest) -> LayerTree:
        with self.observer.layer(layer.digest, layer.size) as seen:
            tree = self.executor.submit(fetch_layer, self.workplace, reference, layer, diff_id).result()
            seen.advance(layer.size)
            return tree


def fetch_layer(workplace: Workplace, reference: Reference, layer: Descriptor, diff_id: Digest) -> LayerTree:
    """Fetch and ingest one layer; when this returns, all that its tree refers to is durable and visible.

    Registries' passwords come from the environment of the process that runs this: they are no part of the task.
    """
    repository = Repository(workplace.fqrn, open_store(workplace.storage, workplace.fqrn))
    index = workplace.content_index(repository.settings.compressor)
    try:
        with repository.store.session(), ThreadPoolExecutor(workplace.workers, "store") as workers:
            ingest = ingest_into(repository, index, workers)
            registry = Registry(credentials=credentials_from_environment(os.environ))
            tree = FetchHere(registry, workplace.spool(), ingest, Unobserved())(reference, layer, diff_id)
            repository.store.flush()
            return tree
    finally:
        index.close()
