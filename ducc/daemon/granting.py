"""The daemon's work done for real: registries are asked, and one pass is granted, as the commands do it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any

from ducc import layout
from ducc.convert.fetch import Workplace
from ducc.convert.grant import ASKERS, grant, look
from ducc.convert.observer import Observer
from ducc.convert.plan import GiveUp, Keep, images_of
from ducc.convert.published import Published
from ducc.convert.report import Report
from ducc.convert.stop import Stop, Threads
from ducc.daemon.work import Seen
from ducc.errors import DuccError
from ducc.publish.keys import KeyDirectory
from ducc.publish.repository import Repository
from ducc.registry.client import Registry
from ducc.storage.open import open_store
from ducc.wishlist.wish import Wish

log = logging.getLogger(__name__)


class Granting:
    """`Work` on one repository. Everything that may change is opened when it is needed, and let go of."""

    def __init__(self, workplace: Workplace, keys: Path, open_registry: Callable[[], Registry]) -> None:
        """Raises what opening the repository, its keys or the registries raises."""
        self._workplace, self._open_registry = workplace, open_registry
        self._registry = open_registry()
        self._repository()
        self._keys = KeyDirectory(keys, workplace.fqrn).load()

    def look(self, wishes: Sequence[Wish], stop: Event) -> list[Seen]:
        ending = Stop(stop)
        found: list[Seen] = []
        concrete: dict[str, tuple[Wish, Wish]] = {}
        with Threads(ASKERS, "expand", ending) as askers:
            expansions = [(wish, askers.submit(images_of, wish, self._registry)) for wish in wishes]
            for wish, expansion in expansions:
                for one in ending.result(expansion):
                    if isinstance(one, GiveUp):
                        found.append(Seen(wish, wish, error=one.error))
                    else:
                        image = replace(wish, reference=one.reference, settings=one.settings)
                        concrete.setdefault(str(one.reference), (wish, image))
        _, steps = look([image for _, image in concrete.values()], self._repository(), self._registry, ending)
        for step in steps:
            name = step.wish if isinstance(step, GiveUp) else str(step.reference)
            of, image = concrete[name]
            if isinstance(step, GiveUp):
                found.append(Seen(of, image, error=step.error))
            else:
                found.append(Seen(of, image, str(step.source_digest), isinstance(step, Keep)))
        return found

    def sizes(self, wishes: Sequence[Wish], stop: Event) -> Iterator[tuple[Wish, int]]:
        ending = Stop(stop)
        repository = self._repository()
        published = Published(repository, repository.head())
        with Threads(ASKERS, "measure", ending) as askers:
            answers: list[tuple[Wish, Future[dict[bytes, int]]]]
            answers = [(wish, askers.submit(self._layers, wish)) for wish in wishes]
            for wish, answer in answers:
                layers = ending.result(answer)
                yield wish, sum(size for path, size in layers.items() if published.bound(path) is None)

    def grant(self, wishes: Sequence[Wish], stop: Event, observer: Observer) -> Report:
        return grant(
            wishes, self._repository(), self._keys, self._registry, self._workplace, observer=observer, stop=stop
        )

    def limits(self) -> dict[str, dict[str, Any]]:
        return {registry: asdict(limits) for registry, limits in self._registry.limits().items()}

    def reload(self) -> None:
        self._registry = self._open_registry()

    def _repository(self) -> Repository:
        return Repository(self._workplace.fqrn, open_store(self._workplace.storage, self._workplace.fqrn))

    def _layers(self, wish: Wish) -> dict[bytes, int]:
        """Where the layers of an image are published, and their sizes; none if the registry does not say."""
        try:
            registry = self._registry.using(wish.settings.credentials)
            builds = registry.resolve_platforms(wish.reference, wish.settings.platforms)
        except DuccError as error:  # whoever grants it will find out, and say so
            log.info("size unknown: image=%s reason=%s", wish.reference, error)
            return {}
        layers = (layer for _, image in builds for layer in image.manifest.layers)
        return {layout.layer_tree(layer.digest): layer.size for layer in layers}
