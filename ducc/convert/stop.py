"""How a pass ends early: what is under way ends by itself within seconds, or is left behind.

A thread that waits for a silent registry can't be woken. So those threads are ones that a program may leave behind:
what they wait for arrives, they see that they were stopped, and end; nothing that is published depends on them.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from threading import Event
from types import TracebackType
from typing import ParamSpec, TypeVar

from ducc.convert.observer import LayerProgress, Observer
from ducc.image.digest import Digest
from ducc.threads import ThreadsLeftBehind

GRACE_SECONDS = 3.0  # for what is under way
LAST_SECONDS = 5.0  # by when what is done is taken up; the commit comes after
_LOOK_SECONDS = 0.2

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(Exception):
    """The pass was asked to end. It is nobody's fault, so it is no `DuccError`."""


class Stop:
    """The wish to end, which *event* tells, as those see it who are at work."""

    def __init__(self, event: Event | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._event, self._clock = event or Event(), clock
        self._is_broken_off = False
        self._since: float | None = None

    @property
    def is_set(self) -> bool:
        """Is the pass to end?"""
        return self._is_broken_off or self._event.is_set()

    def break_off(self) -> None:
        """Let the pass end because of an error; whoever handed the event in is not concerned."""
        self._is_broken_off = True

    def check(self) -> None:
        """Raise `Stopped` if the pass is to end."""
        if self.is_set:
            raise Stopped

    def result(self, future: "Future[T]") -> T:
        """Wait for a result; once the pass is to end, no longer than the grace that is left, then raise `Stopped`.

        What is done by then is returned for a little longer.
        """
        while (left := self.seconds_left()) > 0 or (future.done() and self.seconds_left(LAST_SECONDS) > 0):
            try:
                return future.result(min(left, _LOOK_SECONDS))
            except NotYet:
                if future.done():  # it was the work that raised this
                    raise
        raise Stopped

    def seconds_left(self, grace: float = GRACE_SECONDS) -> float:
        """How long what is under way may still take."""
        if not self.is_set:
            return math.inf
        if self._since is None:
            self._since = self._clock()
        return max(0.0, self._since + grace - self._clock())


class Watched:
    """An observer that passes on what it hears, and ends layers that are under way when the pass is to end."""

    def __init__(self, observer: Observer, stop: Stop) -> None:
        self._observer, self._stop = observer, stop

    @contextmanager
    def layer(self, digest: Digest, size: int) -> Iterator[LayerProgress]:
        self._stop.check()
        with self._observer.layer(digest, size) as seen:
            yield _WatchedLayer(seen, self._stop)

    def image(self, name: str, status: str, reason: str) -> None:
        self._observer.image(name, status, reason)


class _WatchedLayer(LayerProgress):
    def __init__(self, seen: LayerProgress, stop: Stop) -> None:
        self._seen, self._stop = seen, stop

    def advance(self, size: int) -> None:
        self._seen.advance(size)
        self._stop.check()


class Threads(ThreadsLeftBehind):
    """A pool of threads whose block waits no longer than the grace for them once *stop* is set.

    Nor does the end of the process. What has not begun by then never does.
    """

    def __init__(self, number: int, name: str, stop: Stop) -> None:
        super().__init__(number, name)
        self._stop = stop

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        def unless_stopped() -> T:
            self._stop.check()
            return function(*args, **kwargs)

        return super().submit(unless_stopped)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all threads once their work is done; once the pass is to end, those that are done within its grace."""
        super().shutdown()
        for thread in self._threads if wait else ():
            while thread.is_alive() and (left := self._stop.seconds_left()) > 0:
                thread.join(min(left, _LOOK_SECONDS))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stop.break_off()
        self.shutdown()
