"""Signals as something to wait for. They are looked at where it is convenient, and stop nothing by themselves."""

import os
import select
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
RELOAD = frozenset({signal.SIGHUP})


class Signals:
    """Inside this context the main thread is told of `STOP` and `RELOAD` by `wait`; others may `wake` it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, _caught) for number in STOP | RELOAD}
        self._descriptor_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._descriptor_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        with self._lock:
            self._closed = True
            os.close(self._reader)
            os.close(self._writer)

    def wait(self, seconds: float) -> set[int]:
        """Return the signals that have come, after *seconds* at the latest; none if time is up or somebody woke us."""
        if not select.select([self._reader], [], [], max(0.0, seconds))[0]:
            return set()
        return set(os.read(self._reader, 1024)) - {0}

    def wake(self) -> None:
        """Let `wait` return; from any thread, and at any time: when nobody waits any more, nothing happens."""
        with self._lock, suppress(BlockingIOError):  # full: it will return anyway
            if not self._closed:
                os.write(self._writer, b"\0")


def _caught(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the pipe; more is not to be done here."""
