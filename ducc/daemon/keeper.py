"""Keeps one repository equal to its wishlists: looks, puts what is missing in lanes, grants it, and tries again.

Each registry is asked by a thread of its own while there is something to ask, so that waiting for one slows nobody
else's images; one thread a lane grants. What they share, the book, is asked and changed under one lock.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ducc import layout
from ducc.convert.observer import Unobserved
from ducc.convert.report import Outcome, Report
from ducc.convert.stop import Stopped
from ducc.daemon.book import Book, name
from ducc.daemon.events import Events, TellingObserver
from ducc.daemon.schedule import Lane, pause_seconds
from ducc.daemon.state import Run, State, Status
from ducc.daemon.work import Seen, Work
from ducc.errors import DuccError, UnexpectedFailure
from ducc.wishlist.wish import Wish, Wishlist

log = logging.getLogger(__name__)

_REGISTRIES_AT_A_TIME = 16


@dataclass(frozen=True, slots=True)
class Order:
    """A round that was asked for.

    *lists* are what is wished for; *complete* says that no list is missing among them. In a *hurry*, wishes are tried
    whose pause is not over.
    """

    lists: tuple[Wishlist, ...]
    complete: bool
    hurry: bool


@dataclass(frozen=True, slots=True)
class _Question:
    """What one registry is to be asked for."""

    wishes: list[Wish]
    hurry: bool


class Keeper:
    """Everything that is done for one repository."""

    def __init__(
        self,
        fqrn: str,
        work: Work,
        state: State,
        events: Events,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.fqrn = fqrn
        self._work, self._state, self._events, self._clock, self._chance = work, state, events, clock, chance
        self._book = Book(state, clock, chance)
        self._down: set[str] = set()  # registries that answered nobody the last time
        self._looking: set[str] = set()  # registries that are being asked
        self._asked: dict[str, _Question] = {}  # what registries are to be asked, when they are free
        self._order: Order | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [_thread(f"look {fqrn}", self._look)]
        self._threads += [_thread(f"{lane} {fqrn}", self._serve, lane) for lane in Lane]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def order(self, order: Order) -> None:
        """Ask each registry as soon as it has answered what it was asked before; the last order counts."""
        with self._changed:
            hurry = order.hurry or (self._order is not None and self._order.hurry)
            self._order = replace(order, hurry=hurry)
            self._changed.notify_all()

    def reload(self) -> None:
        """Read credentials and the like anew; raises what reading them raises."""
        self._work.reload()

    def stop(self) -> None:
        """Begin nothing more, and end what runs soon."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the threads; have they all ended?"""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            nobody_looks = self._changed.wait_for(lambda: not self._looking, max(0.0, deadline - time.monotonic()))
        return nobody_looks and not any(thread.is_alive() for thread in self._threads)

    def counts(self) -> dict[Status, int]:
        """How many images there are of each status, those that left the lists not counted."""
        with self._changed:
            return self._book.counts()

    # --- looking ---

    def _look(self) -> None:
        """Let each registry be asked as soon as there is something to ask, by one thread at a time."""
        while questions := self._next_questions():
            for registry, question in questions.items():
                _thread(f"look {registry}", self._look_at, registry, question).start()

    def _next_questions(self) -> dict[str, _Question]:
        """Wait until there is something to ask; nothing when all is over."""
        with self._changed:
            while not self._stop.is_set():
                if questions := self._questions():
                    self._looking |= questions.keys()
                    return questions
                self._changed.wait(self._seconds_to_retry())
        return {}

    def _questions(self) -> dict[str, _Question]:
        """What is to be asked now of registries that nobody asks just now."""
        if self._order is not None:
            self._take_order(self._order)
            self._order = None
        free = _REGISTRIES_AT_A_TIME - len(self._looking)
        asked = [registry for registry in self._asked if registry not in self._looking][:free]
        questions = {registry: self._asked.pop(registry) for registry in asked}
        now = self._book.now()
        for wish, due in self._book.to_be_retried():
            registry = wish.reference.registry
            if due > now or registry in self._looking or registry in self._asked or registry in asked:
                continue
            if registry in questions or len(questions) < free:
                questions.setdefault(registry, _Question([], hurry=False)).wishes.append(wish)
        return questions

    def _take_order(self, order: Order) -> None:
        """Note what is wished for from now on; what was to be asked for the last order is not asked any more."""
        self._asked = {}
        for wish in (wish for one in order.lists for wish in one.wishes):
            self._asked.setdefault(wish.reference.registry, _Question([], order.hurry)).wishes.append(wish)
        self._book.take_lists(order.lists, complete=order.complete)

    def _seconds_to_retry(self) -> float | None:
        """How long until a failing wish is due; those whose registry is being asked are seen to after that.

        While no more registries can be asked, all of them are.
        """
        if len(self._looking) >= _REGISTRIES_AT_A_TIME:
            return None
        waiting = [due for wish, due in self._book.to_be_retried() if wish.reference.registry not in self._looking]
        return max(0.0, min(waiting) - self._clock()) if waiting else None

    def _look_at(self, registry: str, question: _Question) -> None:
        try:
            self._look_at_registry(registry, question)
            self._state.note("limits", self._work.limits())
        except Stopped:
            pass
        except Exception as error:  # the daemon goes on whatever a look meets
            log.error("looking failed: registry=%s reason=%s", registry, error, exc_info=error)
            self._stop.wait(pause_seconds(1, UnexpectedFailure.exit_code, self._chance()))
        finally:
            with self._changed:
                self._looking.discard(registry)
                self._changed.notify_all()

    def _look_at_registry(self, registry: str, question: _Question) -> None:
        hurry = question.hurry
        with self._changed:
            asked = self._book.to_be_asked(question.wishes, hurry=hurry)
        if registry in self._down and len(asked) > 1:
            probe, asked = asked[:1], asked[1:]
            if not self._ask(registry, probe, hurry):
                with self._changed:
                    self._book.wait_for(probe[0], asked)
                return
        self._ask(registry, asked, hurry)

    def _ask(self, registry: str, wishes: Sequence[Wish], hurry: bool) -> bool:
        """Look at wishes of one registry, and let lanes have what is wanted; did the registry answer at all?"""
        if not wishes:
            return True
        all_seen = self._seen(wishes)
        is_down = bool(all_seen) and all(seen.error is not None and seen.error.retryable for seen in all_seen)
        with self._changed:
            unsized = self._book.take_in(wishes, all_seen, hurry=hurry)
            if is_down:
                self._down.add(registry)
            elif registry in self._down:
                self._down.discard(registry)
                self._book.hasten(registry)
            self._changed.notify_all()
        self._measure(unsized)
        return not is_down

    def _seen(self, wishes: Sequence[Wish]) -> list[Seen]:
        try:
            return self._work.look(wishes, self._stop)
        except DuccError as error:
            failure = error
        except Stopped:
            raise
        except Exception as error:  # a fault of ours with one registry must not cost the others
            log.error("unexpected failure: repository=%s", self.fqrn, exc_info=error)
            failure = UnexpectedFailure(error)
        return [Seen(wish, wish, error=failure) for wish in wishes]

    def _measure(self, wishes: Sequence[Wish]) -> None:
        """Find out how big images are, and let lanes have each as soon as that is known."""
        for wish, size in self._work.sizes(wishes, self._stop) if wishes else ():
            with self._changed:
                self._book.take_size(wish, size)
                self._changed.notify_all()

    # --- granting ---

    def _serve(self, lane: Lane) -> None:
        while batch := self._next_batch(lane):
            self._grant(lane, batch)

    def _next_batch(self, lane: Lane) -> list[Wish]:
        """Wait until there is something to do in this lane; nothing when all is over."""
        with self._changed:
            while not self._stop.is_set():
                if batch := self._book.hand_out(lane):
                    return batch
                self._changed.wait()
        return []

    def _grant(self, lane: Lane, wishes: Sequence[Wish]) -> None:
        started, clock = self._book.now(), time.monotonic()
        observer = TellingObserver(self._events, Unobserved())
        for wish in wishes:
            observer.begin(name(wish), f"/cvmfs/{self.fqrn}".encode() + layout.public_link(wish.reference))
        report = self._report(wishes, observer)
        outcomes = {outcome.image: outcome for outcome in report.outcomes}
        with self._changed:
            self._book.finished(wishes, outcomes)
            self._changed.notify_all()
        if outcomes:
            counts = Counter(outcome.status for outcome in report.outcomes)
            numbers = counts["published"], counts["unchanged"], counts["failed"]
            self._state.add_run(Run(started, time.monotonic() - clock, lane, *numbers, report.revision))

    def _report(self, wishes: Sequence[Wish], observer: TellingObserver) -> Report:
        """Grant; what fails for all of them is each one's failure."""
        started = time.monotonic()
        try:
            return self._work.grant(wishes, self._stop, observer)
        except DuccError as error:
            failure = error
        except Exception as error:  # the daemon goes on whatever a batch meets
            log.error("unexpected failure: repository=%s", self.fqrn, exc_info=error)
            failure = UnexpectedFailure(error)
        outcomes = tuple(Outcome(name(wish), "failed", failure) for wish in wishes)
        for outcome in outcomes:
            observer.image(outcome.image, outcome.status, str(failure))
        return Report(outcomes, None, time.monotonic() - started)


def _thread(name: str, task: Callable[..., None], *arguments: object) -> threading.Thread:
    return threading.Thread(target=task, args=arguments, name=name, daemon=True)
