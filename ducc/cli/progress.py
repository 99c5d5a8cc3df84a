"""What a person sees of a conversion: bars on a terminal, plain lines elsewhere, nothing where a program reads."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ducc.convert.observer import LayerProgress, Observer, Unobserved
from ducc.image.digest import Digest

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SHOWN_DIGITS = 12


@contextmanager
def watch(json: bool) -> Iterator[Observer]:
    """Show what happens inside this context; with *json*, standard output belongs to the document."""
    if json:
        yield Unobserved()
    elif sys.stderr.isatty():
        with _terminal() as bars:
            yield _Bars(bars)
    else:
        yield Lines()


@contextmanager
def _terminal() -> "Iterator[Progress]":
    from rich.console import Console  # only people wait for this import
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield bars


class Lines:
    """One line for each layer that begins, and for each image that is done with."""

    @contextmanager
    def layer(self, digest: Digest, size: int) -> Iterator[LayerProgress]:
        print(f"layer      {digest.hex[:SHOWN_DIGITS]} ({size / 1e6:.1f} MB)", flush=True)
        yield LayerProgress()

    def image(self, name: str, status: str, reason: str) -> None:
        if reason:
            print(f"ducc: {name}: {reason}", file=sys.stderr, flush=True)
        else:
            print(f"{status:<10} {name}", flush=True)


class _Bars(Lines):
    def __init__(self, bars: "Progress") -> None:
        self._bars = bars

    @contextmanager
    def layer(self, digest: Digest, size: int) -> Iterator[LayerProgress]:
        task = self._bars.add_task(f"layer {digest.hex[:SHOWN_DIGITS]}", total=size)
        try:
            yield _Bar(self._bars, task)
        finally:
            self._bars.remove_task(task)


class _Bar(LayerProgress):
    def __init__(self, bars: "Progress", task: "TaskID") -> None:
        self._bars, self._task = bars, task

    def advance(self, size: int) -> None:
        self._bars.advance(self._task, size)
