"""Who watches a conversion: a terminal's progress bars, a log, or nobody."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ducc.image.digest import Digest
from ducc.layer.stream import Readable


class LayerProgress:
    """One layer on its way. `advance` is called with bytes of the blob as they arrive, from the layer's thread."""

    def advance(self, size: int) -> None:
        """*size* more bytes have come; nobody watches."""

    def counting(self, blob: Readable) -> Readable:
        """The same stream; what is read of it advances this."""
        return _Counting(blob, self)


class Observer(Protocol):
    """Is told what happens; called from several threads."""

    @contextmanager
    def layer(self, digest: Digest, size: int) -> Iterator[LayerProgress]:
        """A layer of *size* compressed bytes is fetched and ingested inside this context."""

    def image(self, name: str, status: str, reason: str) -> None:
        """An image is done with; *reason* says why it failed, if it did."""


class Unobserved:
    """Nobody watches."""

    @contextmanager
    def layer(self, digest: Digest, size: int) -> Iterator[LayerProgress]:
        yield LayerProgress()

    def image(self, name: str, status: str, reason: str) -> None:
        pass


class _Counting:
    def __init__(self, blob: Readable, progress: LayerProgress) -> None:
        self._blob, self._progress = blob, progress

    def read(self, size: int, /) -> bytes:
        data = self._blob.read(size)
        self._progress.advance(len(data))
        return data
