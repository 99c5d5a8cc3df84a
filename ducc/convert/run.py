"""Steps become revisions: images are fetched, ingested and grafted side by side, and committed together.

A wish that fails is reported and leaves the others alone; all that is granted becomes visible in one revision.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from ducc.convert.assembly import Arrived, Assembly, FetchedBuild
from ducc.convert.builds import Build, Failure, find_builds
from ducc.convert.fetch import FetchHere, FetchLayer, LayerWish, ingest_into
from ducc.convert.layers import Got, LayerPool, check_diff_id
from ducc.convert.observer import Observer
from ducc.convert.plan import Convert, GiveUp, Step, is_current
from ducc.convert.published import Published
from ducc.convert.pushes import ThinImages
from ducc.convert.record import ImageRecord
from ducc.convert.report import Outcome, Report
from ducc.convert.spool import Spool
from ducc.convert.stop import Stop, Stopped, Threads, Watched
from ducc.errors import DuccError, UnexpectedFailure
from ducc.ingest.index import ContentIndex
from ducc.publish.changes import Change
from ducc.publish.commit import commit
from ducc.publish.keys import SigningKeys
from ducc.publish.repository import Repository
from ducc.registry.client import Registry

log = logging.getLogger(__name__)

IMAGES_AT_A_TIME = 8  # whose manifests are fetched, and whose layers are asked for
LAYERS_AT_A_TIME = 2


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
    stop: Stop = field(default_factory=Stop)

    def run(self, steps: Sequence[Step], published: Published) -> Report:
        """Grant what can be granted, in one revision on top of the newest one.

        *published* is the revision for which *steps* were made.
        """
        started = time.monotonic()
        wanted = [step for step in steps if isinstance(step, Convert)]
        outcomes: dict[Step, Outcome] = {}
        revision = None
        with self.repository.store.session():  # also without work: it removes what killed publishers have left
            if wanted:
                changes = self._prepare(wanted, published, outcomes)
                if changes:
                    revision = commit(self.repository, self.keys, changes, self.clock).manifest.revision
                    self._forget_blobs(outcomes.values())
        ordered = tuple(outcomes.get(step) or _without_work(step) for step in steps)
        now_published = Published(self.repository, self.repository.head()) if revision else published
        ordered = ThinImages(self.registry, now_published, self.stop).push(steps, ordered)
        for outcome in ordered:
            self.observer.image(outcome.image, outcome.status, outcome.reason)
        return Report(ordered, revision, time.monotonic() - started, self.stop.is_set)

    def _prepare(self, wanted: Sequence[Convert], published: Published, outcomes: dict[Step, Outcome]) -> list[Change]:
        """Write the trees of all images that can be had; return what is to be committed."""
        changes: list[Change] = []
        with (
            ThreadPoolExecutor(self.workers, "store") as workers,
            Threads(LAYERS_AT_A_TIME, "layer", self.stop) as fetchers,
            Threads(IMAGES_AT_A_TIME, "image", self.stop) as images,
        ):
            pool = LayerPool(published, self.elsewhere or self._fetch_here(workers), fetchers)
            assembly = Assembly(self.repository, published, int(self.clock()))
            under_way = [(step, images.submit(self._fetch, step, pool, published)) for step in wanted]
            for step, future in under_way:
                image = str(step.reference)
                ignored = step.settings.ignore_errors
                try:
                    outcomes[step], image_changes = assembly.image(step, self.stop.result(future))
                except Stopped:
                    outcomes[step] = Outcome(image, "stopped")
                except DuccError as error:
                    outcomes[step] = Outcome(image, "failed", error, ignored=ignored)
                except Exception as error:  # a fault of ours in one wish must not cost the others
                    log.error("unexpected failure: image=%s", image, exc_info=error)
                    outcomes[step] = Outcome(image, "failed", UnexpectedFailure(error), ignored=ignored)
                else:
                    changes += image_changes
        return [*assembly.layers.changes(), *changes, *assembly.podman.changes(published)] if changes else []

    def _fetch_here(self, workers: Executor) -> FetchLayer:
        ingest = ingest_into(self.repository, self.index, workers)
        return FetchHere(self.registry, self.spool, ingest, Watched(self.observer, self.stop))

    def _forget_blobs(self, outcomes: Iterable[Outcome]) -> None:
        """What is published need not be fetched again, so its blobs need not be kept."""
        for outcome in outcomes:
            for record in outcome.records:
                self.spool.forget(record.layers)

    def _fetch(self, step: Convert, pool: LayerPool, published: Published) -> Arrived:
        """Resolve one image, and get all layers of those of its builds that are not published yet."""
        found = find_builds(step, self.registry.using(step.settings.credentials))
        arrived = Arrived(found, time.monotonic())
        under_way: list[tuple[Build, Callable[[], list[Got]]]] = []
        for build in found.builds:
            if build.name and (record := _as_published(step, build, published)):
                arrived.current.append(record)
            else:
                under_way.append((build, _request(step, build, pool)))
        for build, wait in under_way:
            try:
                arrived.fetched.append(FetchedBuild(build, wait()))
            except DuccError as error:
                if found.is_for_all_clients:
                    raise
                arrived.failures.append(Failure(build.platform, error))
        return arrived


def _as_published(step: Convert, build: Build, published: Published) -> ImageRecord | None:
    """The record of a build that needs no work: an earlier pass failed only with others of its image."""
    record = published.image(step.reference, build.name)
    if is_current(record, step.source_digest, step.settings):
        return record if record.manifest_digest == build.image.manifest.digest else None
    return None


def _request(step: Convert, build: Build, pool: LayerPool) -> Callable[[], list[Got]]:
    """Let all layers of a build be on their way, the biggest first, since it takes longest."""
    pairs = list(zip(build.image.manifest.layers, build.image.config.diff_ids, strict=True))
    wishes = [LayerWish(step.reference, *pair, step.settings.credentials) for pair in pairs]
    biggest_first = sorted(range(len(wishes)), key=lambda number: -wishes[number].descriptor.size)
    waits = {number: pool.request(wishes[number]) for number in biggest_first}

    def wait() -> list[Got]:
        layers = [waits[number]() for number in range(len(wishes))]
        for layer, wish in zip(layers, wishes, strict=True):
            check_diff_id(layer.tree, wish.diff_id)
        return layers

    return wait


def _without_work(step: Step) -> Outcome:
    if isinstance(step, GiveUp):
        return Outcome(step.wish, "failed", step.error, ignored=step.ignored)
    return Outcome(str(step.reference), "unchanged")
