"""Several that can do the same: which one is asked first, after some of them have failed.

Pure, but for its lock; times are seconds of any clock that only goes forward. What failed is passed over until its time
is up, and then asked first again, if it was first before: nobody has to notice that it has recovered. When all have
failed, all are asked.
"""

import random
from collections.abc import Callable, Sequence
from threading import Lock


class Choices:
    """Names in an order of preference."""

    def __init__(
        self,
        groups: Sequence[Sequence[str]],
        reset_seconds: float,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        """All of a group come before all of the next; within a group *shuffle* decides, so that many clients spread.

        What failed is passed over for *reset_seconds* (0: for ever).
        """
        self._preferred: list[str] = []
        for group in groups:
            members = list(dict.fromkeys(group))
            shuffle(members)
            self._preferred += [name for name in members if name not in self._preferred]
        self._reset_seconds = reset_seconds or float("inf")
        self._failed_at: dict[str, float] = {}
        self._lock = Lock()

    @property
    def all(self) -> tuple[str, ...]:
        """In the order of preference, whatever has failed."""
        return tuple(self._preferred)

    def prefer(self, names: Sequence[str]) -> None:
        """From now on there are *names* only, each preferred to the next."""
        with self._lock:
            self._preferred = list(names)
            self._failed_at = {name: at for name, at in self._failed_at.items() if name in names}

    def in_order(self, now: float) -> list[str]:
        """Whom to ask, the first one first; those that failed not long ago come last, the longest ago first."""
        if not self._failed_at:
            return list(self._preferred)
        with self._lock:
            failed = {name: at for name, at in self._failed_at.items() if now - at < self._reset_seconds}
            self._failed_at = failed
            good = [name for name in self._preferred if name not in failed]
            return good + sorted(failed, key=lambda name: failed[name])

    def failed(self, name: str, now: float) -> bool:
        """Pass it over from now on; True if it was not passed over before."""
        with self._lock:
            fresh = name not in self._failed_at
            self._failed_at[name] = now
            return fresh

    def worked(self, name: str) -> bool:
        """It answers; True if it was passed over before."""
        if name not in self._failed_at:
            return False
        with self._lock:
            return self._failed_at.pop(name, None) is not None
