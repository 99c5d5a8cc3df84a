"""Steps become revisions: images are fetched, ingested and grafted side by side, and committed together.

A wish that fails is reported and leaves the others alone; all that is granted becomes visible in one revision.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ducc import __version__, layout
from ducc.catalog.schema import Counters
from ducc.catalog.tree import Directory
from ducc.catalog.writer import WrittenTree, write_tree
from ducc.convert import apptainer
from ducc.convert.fetch import FetchHere, FetchLayer, ingest_into
from ducc.convert.flat import flat_changes, with_apptainer_files
from ducc.convert.layers import LayerChanges, LayerPool, check_diff_id
from ducc.convert.observer import Observer
from ducc.convert.plan import Convert, GiveUp, Keep, Step
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.convert.spool import Spool
from ducc.errors import DuccError, UnexpectedFailure
from ducc.image.digest import Digest
from ducc.ingest.graft import Layer, graft
from ducc.ingest.index import ContentIndex
from ducc.ingest.layer import LayerTree
from ducc.publish.changes import BindTree, Change
from ducc.publish.commit import commit
from ducc.publish.keys import SigningKeys
from ducc.publish.repository import Head, Repository
from ducc.registry.client import Image, Registry

log = logging.getLogger(__name__)

IMAGES_AT_A_TIME = 8  # whose manifests are fetched, and whose layers are asked for
LAYERS_AT_A_TIME = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image: granted (now or before), or *error*. *record* is set when it was published now."""

    image: str
    status: str  # "published", "unchanged", "failed"
    error: DuccError | None = None
    record: ImageRecord | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """*outcomes* in the order of the wishes; *revision* is the one made, or None when nothing was to be published."""

    outcomes: tuple[Outcome, ...]
    revision: int | None
    seconds: float

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.error is not None]


@dataclass(frozen=True, slots=True)
class Conversion:
    """All that turning wishes into a revision takes.

    *workers* is the number of threads that compress and store; with *elsewhere*, layers are fetched by that instead.
    """

    repository: Repository
    keys: SigningKeys
    registry: Registry
    index: ContentIndex
    spool: Spool
    observer: Observer
    workers: int
    elsewhere: FetchLayer | None = None
    clock: Callable[[], float] = time.time

    def run(self, steps: Sequence[Step], head: Head) -> Report:
        """Grant what can be granted, in one revision on top of the newest one; *head* is what *steps* were made for."""
        started = time.monotonic()
        wanted = [step for step in steps if isinstance(step, Convert)]
        outcomes: dict[Step, Outcome] = {}
        revision = None
        with self.repository.store.session():  # also without work: it removes what killed publishers have left
            if wanted:
                granted, changes = self._prepare(wanted, Published(self.repository, head), outcomes)
                if granted:
                    revision = commit(self.repository, self.keys, changes, self.clock).manifest.revision
                    self._forget_blobs(outcomes.values())
        ordered = tuple(outcomes.get(step) or _without_work(step) for step in steps)
        for outcome in ordered:
            self.observer.image(outcome.image, outcome.status, _reason(outcome))
        return Report(ordered, revision, time.monotonic() - started)

    def _prepare(
        self, wanted: Sequence[Convert], published: Published, outcomes: dict[Step, Outcome]
    ) -> tuple[int, list[Change]]:
        """Write the trees of all images that can be had; return how many there are, and what is to be committed."""
        changes: list[Change] = []
        granted = 0
        with (
            ThreadPoolExecutor(self.workers, "store") as workers,
            ThreadPoolExecutor(LAYERS_AT_A_TIME, "layer") as fetchers,
            ThreadPoolExecutor(IMAGES_AT_A_TIME, "image") as images,
        ):
            pool = LayerPool(published, self.elsewhere or self._fetch_here(workers), fetchers)
            assembly = _Assembly(self.repository, published, int(self.clock()))
            fetched = [(step, images.submit(self._fetch, step, pool)) for step in wanted]
            for step, future in fetched:
                try:
                    record, image_changes = assembly.image(step, *future.result())
                except DuccError as error:
                    outcomes[step] = Outcome(str(step.reference), "failed", error)
                except Exception as error:  # a fault of ours in one wish must not cost the others
                    log.error("unexpected failure: image=%s", step.reference, exc_info=error)
                    outcomes[step] = Outcome(str(step.reference), "failed", UnexpectedFailure(error))
                else:
                    outcomes[step] = Outcome(str(step.reference), "published", record=record)
                    changes += image_changes
                    granted += 1
        return granted, [*assembly.layers.changes(), *changes]

    def _fetch_here(self, workers: Executor) -> FetchLayer:
        ingest = ingest_into(self.repository, self.index, workers)
        return FetchHere(self.registry, self.spool, ingest, self.observer)

    def _forget_blobs(self, outcomes: Iterable[Outcome]) -> None:
        """What is published need not be fetched again, so its blobs need not be kept."""
        for outcome in outcomes:
            if outcome.record is not None:
                self.spool.forget(outcome.record.layers)

    def _fetch(self, step: Convert, pool: LayerPool) -> tuple[Image, list[LayerTree]]:
        """Resolve one image, and get all of its layers."""
        image = self.registry.resolve(step.reference)
        pairs = list(zip(image.manifest.layers, image.config.diff_ids, strict=True))
        biggest_first = sorted(range(len(pairs)), key=lambda number: -pairs[number][0].size)  # it takes longest
        waits = {number: pool.request(step.reference, *pairs[number]) for number in biggest_first}
        layers = [waits[number]() for number in range(len(pairs))]
        for layer, (_, diff_id) in zip(layers, pairs, strict=True):
            check_diff_id(layer, diff_id)
        return image, layers


class _Assembly:
    """Grafts images, one after the other, and collects what is to be published of them and their layers."""

    def __init__(self, repository: Repository, published: Published, now: int) -> None:
        self._repository, self._now = repository, now
        self.layers = LayerChanges(published)

    def image(self, step: Convert, image: Image, layers: list[LayerTree]) -> tuple[ImageRecord, list[Change]]:
        """Write the trees of one image; return its record, and what is to be committed for it."""
        catalogs = self._repository.catalogs
        stack = [Layer(str(layer.digest), catalogs.load(layer.ref), layer.notes) for layer in layers]
        root, completed = graft(stack, catalogs)
        warnings = [*image.warnings, *_config_warnings(image)]
        for layer, one, tree in zip(layers, stack, completed, strict=True):
            warnings += [f"layer {layer.digest}: left out {count} × {why}" for why, count in layer.dropped.items()]
            warnings += self.layers.add(layer, partial(self._completed, layer, one.root, tree), image.config.created)
        written = self._write(with_apptainer_files(root, image.config, self._repository))
        for layer in layers:
            self.layers.add_origin(layer, image.config.digest)
        record = self._record(step, image, written, warnings)
        return record, [BindTree(layout.flat_image(image.config.digest), written), *flat_changes(image, record)]

    def _completed(self, layer: LayerTree, root: Directory, completed: Directory) -> WrittenTree:
        """Write a layer's completed tree; most have nothing to complete, and are written already."""
        if completed is root:
            return WrittenTree(layer.ref, root.entry, layer.counters)
        return self._write(completed)

    def _write(self, tree: Directory) -> WrittenTree:
        return write_tree(tree, self._repository.catalogs, self._repository.settings.split_policy)

    def _record(self, step: Convert, image: Image, tree: WrittenTree, warnings: list[str]) -> ImageRecord:
        source: Digest = image.index.digest if image.index else image.manifest.digest
        return ImageRecord(
            reference=str(step.reference),
            source_digest=source,
            manifest_digest=image.manifest.digest,
            config_digest=image.config.digest,
            platform=str(image.config.platform),
            image_tree=tree.ref,
            layers=tuple(descriptor.digest for descriptor in image.manifest.layers),
            published_at=self._now,
            publisher=f"ducc {__version__}",
            counters=_counted(tree.counters),
            warnings=tuple(dict.fromkeys(warnings)),
        )


def _reason(outcome: Outcome) -> str:
    """Why it failed, without the name of the image, which is said before."""
    return str(outcome.error or "").removeprefix(f"{outcome.image}: ")


def _without_work(step: Step) -> Outcome:
    if isinstance(step, Keep):
        return Outcome(str(step.reference), "unchanged")
    assert isinstance(step, GiveUp)
    return Outcome(step.wish, "failed", step.error)


def _config_warnings(image: Image) -> list[str]:
    return [
        f"environment name {name!r} is none for a shell; left out" for name in apptainer.unusable_names(image.config)
    ]


def _counted(counters: Counters) -> dict[str, int]:
    return {name: value for name, value in counters._asdict().items() if not name.startswith("external")}
