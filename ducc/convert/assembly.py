"""Layers that have arrived become images: grafted one after the other, with all that is to be published of them."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ducc import __version__
from ducc.catalog.schema import Counters
from ducc.catalog.tree import Directory
from ducc.catalog.writer import WrittenTree, write_tree
from ducc.convert import apptainer
from ducc.convert.builds import Build, Failure, Found, SomeBuildsFailed
from ducc.convert.flat import with_apptainer_files
from ducc.convert.layers import Got, LayerChanges
from ducc.convert.plan import FLAT, Convert
from ducc.convert.podman import PodmanStores, StoredImage
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.convert.report import Effort, Outcome
from ducc.convert.shown import build_changes, index_changes, variant_changes
from ducc.errors import DuccError
from ducc.image.chain import chain_ids
from ducc.image.config import ImageConfig
from ducc.image.digest import Digest
from ducc.image.manifest import Index
from ducc.ingest.graft import Layer, graft
from ducc.ingest.layer import LayerTree
from ducc.publish.changes import Change
from ducc.publish.repository import Repository

MOST_LAYERS_APART = 20
"""Of an image with more layers, all are published in one directory, too: engines look each name up in each layer."""


@dataclass(frozen=True, slots=True)
class FetchedBuild:
    """A build and all of its layers, base first."""

    build: Build
    layers: list[Got]


@dataclass(slots=True)
class Arrived:
    """What has come of one image, begun at *started* of the monotonic clock; *current* is published already."""

    found: Found
    started: float
    fetched: list[FetchedBuild] = field(default_factory=list)
    current: list[ImageRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def index(self) -> Index | None:
        """What the builds were found in."""
        return self.found.builds[0].image.index


class Assembly:
    """Grafts images, one after the other, and collects what is to be published of their layers."""

    def __init__(self, repository: Repository, published: Published, now: int) -> None:
        self._repository, self._published, self._now = repository, published, now
        self.layers, self.podman = LayerChanges(published), PodmanStores()

    def image(self, step: Convert, arrived: Arrived) -> tuple[Outcome, list[Change]]:
        """Write the trees of one image; return what became of it, and what is to be committed for it.

        Raises `DuccError` for an image with one build for all clients; of others the builds that failed are told.
        """
        records: list[ImageRecord] = []
        changes: list[Change] = []
        failures = [*arrived.found.failures, *arrived.failures]
        for one in arrived.fetched:
            try:
                record, of_build = self._build(step, one)
            except DuccError as error:
                if arrived.found.is_for_all_clients:
                    raise
                failures.append(Failure(one.build.platform, error))
            else:
                records.append(record)
                changes += of_build
        shown = [*records, *arrived.current]
        if records or (shown and self._lacks_index(step, arrived)):
            changes += index_changes(step.reference, arrived.index)
            if not arrived.found.is_for_all_clients:
                changes += variant_changes(step.reference, shown, self._published)
        warnings = (*arrived.found.warnings, *self._left_behind(step, arrived.found))
        return _outcome(step, records, failures, warnings, _effort(arrived)), changes

    def _lacks_index(self, step: Convert, arrived: Arrived) -> bool:
        shown = self._published.index(step.reference)
        return arrived.index is not None and (shown is None or shown.digest != arrived.index.digest)

    def _left_behind(self, step: Convert, found: Found) -> list[str]:
        """Warn of builds that this image does not have any more, but are shown."""
        if found.is_for_all_clients:
            return []
        names = {build.name for build in found.builds}
        return [
            f"{step.reference}: its build {record.build} is one of an earlier index"
            for record in self._published.builds(step.reference)
            if record.build and record.build not in names and record.source_digest != step.source_digest
        ]

    def _build(self, step: Convert, fetched: FetchedBuild) -> tuple[ImageRecord, list[Change]]:
        image, catalogs = fetched.build.image, self._repository.catalogs
        layers = [got.tree for got in fetched.layers]
        stack = [Layer(str(layer.digest), catalogs.load(layer.ref), layer.notes) for layer in layers]
        root, completed = graft(stack, catalogs)
        warnings = [*image.warnings, *_config_warnings(image.config)]
        chains = chain_ids([layer.diff_id for layer in layers])
        for layer, chain, one, tree in zip(layers, chains, stack, completed, strict=True):
            warnings += [f"layer {layer.digest}: left out {count} × {why}" for why, count in layer.dropped.items()]
            self.layers.add(layer, one.root.entry, image.config.created)
            if tree is not one.root or not layer.notes.fits_anywhere():
                self.layers.add_completed(layer, chain, partial(self._completed, layer, one.root, tree))
        if len(layers) > MOST_LAYERS_APART:
            self.layers.add_whole(layers[-1], chains[-1], partial(self._write, root))
        written = self._flat(root, image.config) if FLAT in step.settings.products else None
        for layer in layers:
            self.layers.add_origin(layer, image.config.digest)
        counters = written.counters if written else _together(layers)
        record = ImageRecord(
            reference=str(step.reference),
            source_digest=(image.index or image.manifest).digest,
            manifest_digest=image.manifest.digest,
            config_digest=image.config.digest,
            platform=str(image.config.platform),
            image_tree=written and written.ref,
            layers=tuple(descriptor.digest for descriptor in image.manifest.layers),
            published_at=self._now,
            publisher=f"ducc {__version__}",
            counters=_counted(counters),
            warnings=tuple(dict.fromkeys(warnings)),
            build=fetched.build.name,
        )
        places = self.layers.standing(layers)
        stored = StoredImage(
            step.reference, record.build, image.manifest, image.config, layers, places, is_flat=written is not None
        )
        self.podman.add(stored)
        return record, build_changes(step.reference, image, record, written)

    def _flat(self, root: Directory, config: ImageConfig) -> WrittenTree:
        return self._write(with_apptainer_files(root, config, self._repository))

    def _completed(self, layer: LayerTree, root: Directory, completed: Directory) -> WrittenTree:
        """Write a layer's completed tree; most have nothing to complete, and are written already."""
        if completed is root:
            return WrittenTree(layer.ref, root.entry, layer.counters)
        return self._write(completed)

    def _write(self, tree: Directory) -> WrittenTree:
        return write_tree(tree, self._repository.catalogs, self._repository.settings.split_policy)


def _outcome(
    step: Convert,
    records: Sequence[ImageRecord],
    failures: Sequence[Failure],
    warnings: tuple[str, ...],
    effort: Effort,
) -> Outcome:
    image, ignored = str(step.reference), step.settings.ignore_errors
    if failures:
        error = SomeBuildsFailed(image, failures)
        return Outcome(image, "failed", error, tuple(records), warnings, effort, ignored)
    return Outcome(image, "published" if records else "unchanged", None, tuple(records), warnings, effort)


def _effort(arrived: Arrived) -> Effort:
    """What the image took until now; a layer that several of its builds have counts once."""
    sizes: dict[Digest, int] = {}
    fetched: dict[Digest, int] = {}
    for one in arrived.fetched:
        for descriptor, got in zip(one.build.image.manifest.layers, one.layers, strict=True):
            sizes[descriptor.digest] = descriptor.size
            if got.fetched:
                fetched[descriptor.digest] = descriptor.size
    return Effort(time.monotonic() - arrived.started, sum(sizes.values()), sum(fetched.values()))


def _together(layers: Iterable[LayerTree]) -> Counters:
    """What layers hold, each for itself."""
    return Counters(*map(sum, zip(Counters(), *(layer.counters for layer in layers), strict=True)))


def _config_warnings(config: ImageConfig) -> list[str]:
    return [f"environment name {name!r} is none for a shell; left out" for name in apptainer.unusable_names(config)]


def _counted(counters: Counters) -> dict[str, int]:
    return {name: value for name, value in counters._asdict().items() if not name.startswith("external")}
