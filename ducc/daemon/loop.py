"""The daemon's main thread: reads wishlists when their time has come, and hands what they say to the keepers.

It waits for signals and for time, and for nothing else: what may take long is done by other threads, so that it stops
within seconds, and so that systemd's watchdog hears of it as long as it can.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from ducc.daemon.keeper import Keeper, Order
from ducc.daemon.schedule import interval_seconds, pause_seconds
from ducc.daemon.signals import RELOAD, STOP, Signals
from ducc.daemon.state import Status
from ducc.daemon.systemd import Notifier
from ducc.errors import DuccError
from ducc.wishlist.sources import Change, Loaded
from ducc.wishlist.wish import Wishlist

log = logging.getLogger(__name__)

STOP_SECONDS = 8.0  # of the ten within which it has to be over
_STATUS_SECONDS = 15.0  # between two looks at what is to be told
_LONGEST_LOAD_SECONDS = 3600.0  # a list that is not read by then is stuck: the watchdog is to know
_LISTS_AT_A_TIME = 8


class Source(Protocol):
    """Where a wishlist comes from."""

    @property
    def name(self) -> str: ...

    def load(self) -> Loaded: ...


@dataclass(slots=True)
class Slot:
    """One wishlist: how often it is to be read, when next, and what it said last."""

    source: Source
    interval_seconds: float
    due: float = 0.0
    failures: int = 0
    wishlist: Wishlist | None = None


class Loop:
    """The daemon for any number of wishlists, and the repositories that they name."""

    def __init__(
        self,
        slots: Sequence[Slot],
        open_keeper: Callable[[str, ExitStack], Keeper],
        notifier: Notifier,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """*open_keeper* makes the keeper of a repository, and says what is to be closed in the end."""
        self._slots, self._open_keeper, self._notifier = slots, open_keeper, notifier
        self._clock, self._chance = clock, chance
        self._keepers: dict[str, Keeper] = {}
        self._opened = ExitStack()
        self._signals = Signals()
        self._loading_since: float | None = None  # when somebody began who still reads lists
        self._hurry = False  # somebody asked for everything to be read anew
        self._lock = threading.Lock()  # of the slots and the keepers

    def __enter__(self) -> Self:
        """Read all lists, and open their repositories; raises if that can't be done at all."""
        with self._lock:
            for slot, loaded in self._load(self._slots):
                if loaded.wishlist is None and loaded.error is not None and not loaded.error.retryable:
                    raise loaded.error
                self._take_in(slot, loaded)
            try:
                for fqrn in self._fqrns():
                    self._keeper(fqrn)
            except BaseException:
                self._opened.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def run(self) -> bool:
        """Work until a signal says to stop; has everything come to its end by then, and is no list being read?"""
        with self._signals:
            self._give_orders(self._fqrns(), hurry=False)
            self._notifier.ready(self._status())
            log.info("ready: repositories=%s wishlists=%d", ",".join(self._keepers) or "none", len(self._slots))
            pace = min(self._notifier.watchdog_seconds or _STATUS_SECONDS, _STATUS_SECONDS)
            while not (heard := self._signals.wait(min(pace, self._seconds_to_next_list()))) & STOP:
                if heard & RELOAD:
                    self._reload()
                self._load_what_is_due()
                if not self._is_stuck():
                    self._notifier.alive()
                self._notifier.status(self._status())
            return self._stop()

    def _stop(self) -> bool:
        self._notifier.stopping()
        log.info("stopping")
        deadline = self._clock() + STOP_SECONDS
        self._stop_keepers()
        nobody_orders = self._lock.acquire(timeout=STOP_SECONDS)  # for good: no repository is opened from now on
        keepers = self._stop_keepers()
        ended = [keeper.join(deadline - self._clock()) for keeper in keepers]
        if not all(ended):
            log.warning("stopped in the middle of something; the next start takes it up again")
        return all(ended) and nobody_orders and self._loading_since is None

    def _stop_keepers(self) -> list[Keeper]:
        """Stop all that there are by now."""
        keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.stop()
        return keepers

    def _reload(self) -> None:
        """Read everything anew, at once, and let failing wishes be tried."""
        self._notifier.reloading()
        log.info("reloading")
        with self._lock:
            for keeper in self._keepers.values():
                try:
                    keeper.reload()
                except DuccError as error:
                    log.error("settings stay as they were: repository=%s reason=%s", keeper.fqrn, error)
        self._hurry = True

    def _load_what_is_due(self) -> None:
        """Begin to read the lists whose time has come; all of them in a hurry. While some are read, others wait."""
        due = [slot for slot in self._slots if self._hurry or slot.due <= self._clock()]
        if not due or self._loading_since is not None:
            return
        hurry, self._hurry = self._hurry, False
        self._loading_since = self._clock()
        threading.Thread(target=self._load_and_order, args=(due, hurry), name="lists", daemon=True).start()

    def _load_and_order(self, due: Sequence[Slot], hurry: bool) -> None:
        """Read lists, and order a round for the repositories that they are for."""
        try:
            self._order(due, self._load(due), hurry)
        except Exception as error:  # the daemon goes on whatever a list makes it meet
            log.error("wishlists not read: reason=%s", error, exc_info=error)
            for slot in due:
                slot.due = self._clock() + slot.interval_seconds
        if hurry:
            self._notifier.ready(self._status())
        self._loading_since = None
        self._signals.wake()

    def _order(self, due: Sequence[Slot], loads: Iterable[tuple[Slot, Loaded]], hurry: bool) -> None:
        with self._lock:
            concerned = {slot.wishlist.fqrn for slot in due if slot.wishlist is not None}
            for slot, loaded in loads:
                self._take_in(slot, loaded)
            concerned |= {slot.wishlist.fqrn for slot in due if slot.wishlist is not None}
            for fqrn in self._fqrns():
                try:
                    self._keeper(fqrn)
                except DuccError as error:
                    log.error("repository can't be worked on: repository=%s reason=%s", fqrn, error)
            self._give_orders(concerned, hurry=hurry)

    def _load(self, slots: Sequence[Slot]) -> list[tuple[Slot, Loaded]]:
        with ThreadPoolExecutor(_LISTS_AT_A_TIME, "list") as threads:
            return list(zip(slots, threads.map(lambda slot: slot.source.load(), slots), strict=True))

    def _take_in(self, slot: Slot, loaded: Loaded) -> None:
        """Note what was read, and when to read again: soon if nothing was."""
        slot.wishlist = loaded.wishlist
        pause = interval_seconds(slot.interval_seconds, self._chance())
        if loaded.change is Change.BAD and loaded.error is not None:
            slot.failures += 1
            if slot.failures == 1:
                kept = "the last good one counts" if loaded.wishlist else "there is no earlier one"
                for line in str(loaded.error).splitlines():
                    log.error("wishlist can't be used, %s: source=%s reason=%s", kept, slot.source.name, line)
            pause = min(pause, pause_seconds(slot.failures, loaded.error.exit_code, self._chance()))
        else:
            slot.failures = 0
        slot.due = self._clock() + pause

    def _fqrns(self) -> set[str]:
        return {slot.wishlist.fqrn for slot in self._slots if slot.wishlist is not None}

    def _keeper(self, fqrn: str) -> Keeper:
        if fqrn not in self._keepers:
            keeper = self._open_keeper(fqrn, self._opened)
            keeper.start()
            self._keepers[fqrn] = keeper
        return self._keepers[fqrn]

    def _give_orders(self, fqrns: set[str], *, hurry: bool) -> None:
        lists = [slot.wishlist for slot in self._slots if slot.wishlist is not None]
        complete = len(lists) == len(self._slots)
        for fqrn in fqrns & self._keepers.keys():
            ours = tuple(one for one in lists if one.fqrn == fqrn)
            self._keepers[fqrn].order(Order(ours, complete, hurry))

    def _seconds_to_next_list(self) -> float:
        if self._loading_since is not None:
            return _STATUS_SECONDS
        return max(0.0, min(slot.due for slot in self._slots) - self._clock())

    def _is_stuck(self) -> bool:
        since = self._loading_since
        return since is not None and self._clock() - since > _LONGEST_LOAD_SECONDS

    def _status(self) -> str:
        counts = [keeper.counts() for keeper in list(self._keepers.values())]
        return ", ".join(f"{sum(count[status] for count in counts)} {status}" for status in Status)
