"""Keeps one repository equal to its wishlists: looks, puts what is missing in lanes, grants it, and tries again.

Each registry is asked by a thread of its own while there is something to ask, so that waiting for one slows nobody
else's images; one thread a lane grants. What they share is changed under one lock, and noted in the state.
"""

import logging
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ducc import layout
from ducc.convert.observer import Unobserved
from ducc.convert.report import Outcome, Report
from ducc.convert.stop import Stopped
from ducc.daemon import transitions
from ducc.daemon.events import Events, TellingObserver
from ducc.daemon.meaning import may_mean
from ducc.daemon.schedule import Lane, next_batch, pause_seconds
from ducc.daemon.state import ImageState, Run, State, Status
from ducc.daemon.work import Seen, Work
from ducc.errors import DuccError, UnexpectedFailure
from ducc.image.reference import Reference
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
        self._images = {image.image: image for image in state.images()}
        self._wishes: dict[str, Wish] = {}  # by image, and by wish; as far as lists were read since we began
        self._ready: set[str] = set()  # images for the lanes to take
        self._busy: set[str] = set()  # images that a lane has
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
            there = [image.status for image in self._images.values() if image.left_at is None]
        return {status: there.count(status) for status in Status}

    # --- looking ---

    def _look(self) -> None:
        """Let each registry be asked as soon as there is something to ask, by one thread at a time."""
        while not self._stop.is_set():
            with self._changed:
                questions = self._questions()
                if not questions:
                    self._changed.wait(self._seconds_to_retry())
                self._looking |= questions.keys()
            for registry, question in questions.items():
                _thread(f"look {registry}", self._look_at, registry, question).start()

    def _questions(self) -> dict[str, _Question]:
        """What is to be asked now of registries that nobody asks just now."""
        if self._order is not None:
            self._take_order(self._order)
            self._order = None
        free = _REGISTRIES_AT_A_TIME - len(self._looking)
        asked = [registry for registry in self._asked if registry not in self._looking][:free]
        questions = {registry: self._asked.pop(registry) for registry in asked}
        now = self._now()
        for image in self._to_be_retried():
            wish = self._wishes[image.image]
            registry = wish.reference.registry
            if image.next_try > now or registry in self._looking or registry in self._asked or registry in asked:
                continue
            if registry in questions or len(questions) < free:
                questions.setdefault(registry, _Question([], hurry=False)).wishes.append(wish)
        return questions

    def _take_order(self, order: Order) -> None:
        """Note what is wished for from now on; what was to be asked for the last order is not asked any more."""
        now = self._now()
        self._asked = {}
        for wish in (wish for one in order.lists for wish in one.wishes):
            self._asked.setdefault(wish.reference.registry, _Question([], order.hurry)).wishes.append(wish)
        broken = [wish for one in order.lists for wish in one.broken]
        states = [transitions.broken(self._images.get(transitions.place_of(wish)), wish, now) for wish in broken]
        for state in states:
            self._log_change(self._images.get(state.image), state)
        self._images |= {state.image: state for state in states}
        self._note_unlisted(order, {state.image for state in states})
        self._state.save(self._images.values())

    def _to_be_retried(self) -> list[ImageState]:
        return [
            image
            for image in self._images.values()
            if image.status is Status.FAILING
            and image.left_at is None
            and image.image in self._wishes
            and image.image not in self._ready
            and image.image not in self._busy
        ]

    def _seconds_to_retry(self) -> float | None:
        """How long until a failing wish is due; those whose registry is being asked are seen to after that."""
        waiting = [
            image.next_try
            for image in self._to_be_retried()
            if self._wishes[image.image].reference.registry not in self._looking
        ]
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
        now, hurry = self._now(), question.hurry
        with self._changed:
            images = self._images
            asked = [w for w in question.wishes if hurry or not transitions.is_left_alone(images.get(_name(w)), now)]
        if registry in self._down and len(asked) > 1:
            probe, asked = asked[:1], asked[1:]
            if not self._ask(registry, probe, hurry):
                self._wait_for_probe(probe[0], asked)
                return
        self._ask(registry, asked, hurry)

    def _ask(self, registry: str, wishes: Sequence[Wish], hurry: bool) -> bool:
        """Look at wishes of one registry, and let lanes have what is wanted; did the registry answer at all?"""
        if not wishes:
            return True
        all_seen = self._seen(wishes)
        is_down = bool(all_seen) and all(seen.error is not None and seen.error.retryable for seen in all_seen)
        with self._changed:
            unsized = [seen.wish for seen in all_seen if self._take_in(seen, hurry)]
            self._note_unanswered(wishes, all_seen)
            if is_down:
                self._down.add(registry)
            elif registry in self._down:
                self._down.discard(registry)
                self._hasten(registry)
            self._state.save(self._images[seen.image] for seen in all_seen)
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

    def _take_in(self, seen: Seen, hurry: bool) -> bool:
        """Note what was seen of an image; is it wanted, and its size not known?"""
        now = self._now()
        self._wishes[seen.image] = seen.wish
        if seen.image in self._busy:
            return False
        image = transitions.after_look(self._images.get(seen.image), seen, now, self._chance())
        self._log_change(self._images.get(seen.image), image)
        self._images[image.image] = image
        self._ready.discard(image.image)
        if seen.error is not None or not transitions.is_wanted(image, now, hurry=hurry):
            return False
        if image.size is None:
            return True
        self._ready.add(image.image)
        return False

    def _note_unanswered(self, wishes: Iterable[Wish], all_seen: Iterable[Seen]) -> None:
        """Of a wish that could be made into images, only these are there: not itself, nor those seen earlier."""
        unclear = {str(seen.of.reference) for seen in all_seen if seen.error is not None and seen.wish == seen.of}
        clear = {_name(wish) for wish in wishes if wish.reference.is_wildcard} - unclear
        seen_images = {seen.image for seen in all_seen}
        self._leave(image for image in self._images.values() if image.wish in clear and image.image not in seen_images)

    def _wait_for_probe(self, probe: Wish, others: Iterable[Wish]) -> None:
        """A registry that does not answer one does not answer the others: they wait as long as that one."""
        with self._changed:
            until = self._images[_name(probe)].next_try
            for name in map(_name, others):
                if name in self._images and self._images[name].status is Status.FAILING:
                    self._images[name] = replace(self._images[name], next_try=until)

    def _hasten(self, registry: str) -> None:
        """A registry answers again: who failed because of it need not wait any longer."""
        now = self._now()
        for name, wish in self._wishes.items():
            image = self._images.get(name)
            if image is not None and transitions.is_left_alone(image, now) and wish.reference.registry == registry:
                self._images[name] = replace(image, next_try=now)

    def _measure(self, wishes: Sequence[Wish]) -> None:
        """Find out how big images are, and let lanes have each as soon as that is known."""
        for wish, size in self._work.sizes(wishes, self._stop) if wishes else ():
            with self._changed:
                image = self._images[_name(wish)] = replace(self._images[_name(wish)], size=size)
                self._ready.add(image.image)
                self._state.save([image])
                self._changed.notify_all()

    def _note_unlisted(self, order: Order, broken: set[str]) -> None:
        """Note who stands on no list any more: only where the list was read, or none is missing."""
        read = {one.path for one in order.lists}
        wishes: defaultdict[tuple[str, str], list[Reference]] = defaultdict(list)
        for wish in (wish.reference for one in order.lists for wish in one.wishes):
            wishes[wish.registry, wish.repository].append(wish)
        known = (image for image in self._images.values() if order.complete or image.source in read)
        self._leave(image for image in known if image.image not in broken and not _is_listed(image.image, wishes))

    def _leave(self, images: Iterable[ImageState]) -> None:
        """These are not wished for any more. What a lane has is seen to when it is looked at again."""
        now = self._now()
        for image in [image for image in images if image.image not in self._busy]:
            after = transitions.left(image, now)
            self._ready.discard(image.image)
            self._wishes.pop(image.image, None)
            if after is None:
                del self._images[image.image]
                self._state.forget([image.image])
            else:
                self._images[image.image] = after
                self._state.save([after])

    # --- granting ---

    def _serve(self, lane: Lane) -> None:
        while batch := self._next_batch(lane):
            self._grant(lane, batch)

    def _next_batch(self, lane: Lane) -> list[ImageState]:
        """Wait until there is something to do in this lane; nothing when all is over."""
        with self._changed:
            while not self._stop.is_set():
                waiting = [self._images[name] for name in self._ready if name not in self._busy]
                if batch := next_batch(waiting, lane):
                    self._busy |= {image.image for image in batch}
                    return batch
                self._changed.wait()
        return []

    def _grant(self, lane: Lane, batch: Sequence[ImageState]) -> None:
        started, clock = self._now(), time.monotonic()
        wishes = [self._wishes[image.image] for image in batch]
        observer = TellingObserver(self._events, Unobserved())
        for wish in wishes:
            observer.begin(_name(wish), f"/cvmfs/{self.fqrn}".encode() + layout.public_link(wish.reference))
        report = self._report(wishes, observer)
        outcomes = {outcome.image: outcome for outcome in report.outcomes}
        with self._changed:
            for image in batch:
                self._finish(image.image, outcomes.get(image.image))
            self._state.save(self._images[image.image] for image in batch)
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
        outcomes = tuple(Outcome(_name(wish), "failed", failure) for wish in wishes)
        for outcome in outcomes:
            observer.image(outcome.image, outcome.status, str(failure))
        return Report(outcomes, None, time.monotonic() - started)

    def _finish(self, name: str, outcome: Outcome | None) -> None:
        """Note what became of an image that a lane had; what was not reported was not done, and is looked at again."""
        self._busy.discard(name)
        self._ready.discard(name)
        if outcome is None or outcome.status == "stopped":
            return
        before, now = self._images[name], self._now()
        if outcome.error is None:
            after = transitions.granted(before, now)
        else:
            after = transitions.failed(before, outcome.error, now, self._chance())
        self._images[name] = after
        self._log_change(before, after)

    def _log_change(self, before: ImageState | None, after: ImageState) -> None:
        """A failure is worth an operator's attention once, until it is over."""
        was_failing = before is not None and before.status is Status.FAILING
        if after.status is Status.FAILING and not was_failing:
            log.warning("wish fails: image=%s kind=%s reason=%s", after.image, after.kind, after.reason)
        elif after.status is Status.GRANTED and (before is None or before.status is not Status.GRANTED):
            log.info("wish granted: image=%s", after.image)

    def _now(self) -> int:
        return int(self._clock())


def _is_listed(image: str, wishes: Mapping[tuple[str, str], Sequence[Reference]]) -> bool:
    """May one of the wishes, by registry and image name, stand for the image, or for what is known by its name?"""
    try:
        reference = Reference.parse(image)
    except DuccError:  # a place in a list
        return False
    ours = wishes.get((reference.registry, reference.repository), ())
    return any(wish == reference or may_mean(wish, reference) for wish in ours)


def _thread(name: str, task: Callable[..., None], *arguments: object) -> threading.Thread:
    return threading.Thread(target=task, args=arguments, name=name, daemon=True)


def _name(wish: Wish) -> str:
    return str(wish.reference)
