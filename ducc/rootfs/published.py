"""The layers of all repositories that a machine mounts: one question for every engine, answered in time.

Repositories are asked in order, each within a deadline: a mount whose server hangs would keep the caller for ever.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import TimeoutError as DeadlinePassed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.rootfs.locate import LayerAbsent, MountedRepository, RepositoryUnavailable, StackedLayer
from ducc.threads import ThreadsLeftBehind

_THREADS = 4

Answer = TypeVar("Answer")


class NotPublished(DuccError):
    """No repository has the layer for its stack, and all were asked."""


class LayersUnavailable(DuccError):
    """A layer can't be said to be absent: a repository that may have it does not answer."""

    retryable = True


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """Where a layer can be read now."""

    fqrn: str
    directory: Path


class PublishedLayers:
    """The layers of all *repositories*, the preferred one first. Thread-safe."""

    def __init__(self, repositories: Iterable[MountedRepository], deadline_seconds: float) -> None:
        self._asked = [_Asked(repository, deadline_seconds) for repository in repositories]

    def find(self, wanted: StackedLayer) -> PublishedLayer:
        """Where the layer is. Raises `NotPublished` or `LayersUnavailable`."""
        return self._ask(wanted.digest, lambda repository: PublishedLayer(repository.fqrn, repository.layer(wanted)))

    def diff_id(self, digest: Digest) -> Digest:
        """What the layer *digest* is, uncompressed, as its publisher knows it. Raises what `find` raises."""
        return self._ask(digest, lambda repository: repository.diff_id(digest))

    def find_all(self, wanted: Sequence[StackedLayer]) -> list[PublishedLayer]:
        """Where each of some layers is. Raises what `find` raises.

        Most often the preferred repository has all of them; then it is asked one question, not one for each.
        """
        if not wanted:
            return []
        try:
            return self._asked[0].answer(
                lambda repository: [PublishedLayer(repository.fqrn, place) for place in repository.layers(wanted)]
            )
        except (LayerAbsent, RepositoryUnavailable):
            return [self.find(layer) for layer in wanted]

    def whole(self, stacks: Sequence[StackedLayer]) -> tuple[int, PublishedLayer] | None:
        """The first of *stacks* whose layers can be had in one directory now: its place among them, and where it is."""

        def question(repository: MountedRepository) -> tuple[int, PublishedLayer]:
            place, directory = repository.whole(stacks)
            return place, PublishedLayer(repository.fqrn, directory)

        try:
            return self._ask(stacks[0].digest, question) if stacks else None
        except (NotPublished, LayersUnavailable):
            return None

    def directories(self, image: Sequence[StackedLayer]) -> list[Path]:
        """What overlayfs is to put over one another for an image: its layers' directories, topmost first.

        *image* is base first, as `stacked` gives it. Raises what `find` raises: all of an image is there, or nothing.
        """
        return [found.directory for found in self.find_all(image[::-1])]

    def _ask(self, digest: Digest, question: Callable[[MountedRepository], Answer]) -> Answer:
        silent, absent = [], []
        for asked in self._asked:
            try:
                return asked.answer(question)
            except LayerAbsent as error:
                absent.append(str(error))
            except RepositoryUnavailable as error:
                silent.append(str(error))
        if silent:
            raise LayersUnavailable(f"layer {digest} can't be read: {'; '.join(silent)}")
        raise NotPublished("; ".join(absent))


class _Asked:
    """A repository that is asked within a deadline, and left alone for as long when it let one pass.

    So a chain of forty layers waits once for a repository that hangs, not forty times.
    """

    def __init__(self, repository: MountedRepository, deadline_seconds: float) -> None:
        self.repository = repository
        self._deadline_seconds = deadline_seconds
        self._threads = ThreadsLeftBehind(_THREADS, repository.fqrn)
        self._silent_until = 0.0  # on the monotonic clock

    def answer(self, question: Callable[[MountedRepository], Answer]) -> Answer:
        """What *question* makes of the repository. Raises `LayerAbsent` or `RepositoryUnavailable`."""
        if time.monotonic() < self._silent_until:
            raise self._silence()
        asked = self._threads.submit(question, self.repository)
        try:
            return asked.result(self._deadline_seconds)
        except DeadlinePassed:
            asked.cancel()
            self._silent_until = time.monotonic() + self._deadline_seconds
            raise self._silence() from None

    def _silence(self) -> RepositoryUnavailable:
        return RepositoryUnavailable(f"{self.repository.fqrn} did not answer within {self._deadline_seconds:g} s")
