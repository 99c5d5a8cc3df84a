"""What is known of every image that one repository is to have, and what is to be done about it.

Not thread-safe: the keeper asks and tells it under a lock of its own. What changes is noted in the state.
"""

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ducc.convert.report import Outcome
from ducc.daemon import transitions
from ducc.daemon.meaning import may_mean
from ducc.daemon.schedule import Lane, next_batch
from ducc.daemon.state import ImageState, State, Status
from ducc.daemon.work import Seen
from ducc.errors import DuccError
from ducc.image.reference import Reference
from ducc.wishlist.wish import Wish, Wishlist

log = logging.getLogger(__name__)


class Book:
    """The images by name, the wishes that they stand for, and who has them just now."""

    def __init__(
        self, state: State, clock: Callable[[], float] = time.time, chance: Callable[[], float] = random.random
    ) -> None:
        self._state, self._clock, self._chance = state, clock, chance
        self._images = {image.image: image for image in state.images()}
        self._wishes: dict[str, Wish] = {}  # by image, and by wish; as far as lists were read since we began
        self._ready: set[str] = set()  # images for the lanes to take
        self.busy: set[str] = set()  # images that a lane has

    def counts(self) -> dict[Status, int]:
        """How many images there are of each status, those that left the lists not counted."""
        there = [image.status for image in self._images.values() if image.left_at is None]
        return {status: there.count(status) for status in Status}

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    # --- what stands on the lists ---

    def take_lists(self, lists: Sequence[Wishlist], *, complete: bool) -> None:
        """Note which wishes are broken, and which images are wished for no more; *complete*: no list is missing."""
        now = self.now()
        broken = [wish for one in lists for wish in one.broken]
        states = [transitions.broken(self._images.get(transitions.place_of(wish)), wish, now) for wish in broken]
        for state in states:
            self._log_change(self._images.get(state.image), state)
        self._images |= {state.image: state for state in states}
        self._note_unlisted(lists, complete, {state.image for state in states})
        self._state.save(self._images.values())

    def _note_unlisted(self, lists: Sequence[Wishlist], complete: bool, broken: set[str]) -> None:
        """Note who stands on no list any more: only where the list was read, or none is missing."""
        read = {one.path for one in lists}
        wishes: defaultdict[tuple[str, str], list[Reference]] = defaultdict(list)
        for wish in (wish.reference for one in lists for wish in one.wishes):
            wishes[wish.registry, wish.repository].append(wish)
        known = (image for image in self._images.values() if complete or image.source in read)
        self._leave(image for image in known if image.image not in broken and not _is_listed(image.image, wishes))

    def _leave(self, images: Iterable[ImageState]) -> None:
        """These are not wished for any more. What a lane has is seen to when it is looked at again."""
        now = self.now()
        for image in [image for image in images if image.image not in self.busy]:
            after = transitions.left(image, now)
            self._ready.discard(image.image)
            self._wishes.pop(image.image, None)
            if after is None:
                del self._images[image.image]
                self._state.forget([image.image])
            else:
                self._images[image.image] = after
                self._state.save([after])

    # --- what registries said ---

    def to_be_asked(self, wishes: Iterable[Wish], *, hurry: bool) -> list[Wish]:
        """Those of the wishes whose pause is over; all of them in a hurry."""
        now = self.now()
        return [wish for wish in wishes if hurry or not transitions.is_left_alone(self._images.get(name(wish)), now)]

    def to_be_retried(self) -> list[tuple[Wish, int]]:
        """The failing wishes that nobody is at, and when each is due, in unix seconds."""
        return [
            (self._wishes[image.image], image.next_try)
            for image in self._images.values()
            if image.status is Status.FAILING
            and image.left_at is None
            and image.image in self._wishes
            and image.image not in self._ready
            and image.image not in self.busy
        ]

    def take_in(self, wishes: Iterable[Wish], all_seen: Sequence[Seen], *, hurry: bool) -> list[Wish]:
        """Note what a registry said of *wishes*; return what is wanted and of unknown size."""
        unsized = [seen.wish for seen in all_seen if self._take_in(seen, hurry)]
        self._note_unanswered(wishes, all_seen)
        self._state.save(self._images[seen.image] for seen in all_seen)
        return unsized

    def _take_in(self, seen: Seen, hurry: bool) -> bool:
        """Note what was seen of an image; is it wanted, and its size not known?"""
        now = self.now()
        self._wishes[seen.image] = seen.wish
        if seen.image in self.busy:
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
        clear = {name(wish) for wish in wishes if wish.reference.is_wildcard} - unclear
        seen_images = {seen.image for seen in all_seen}
        self._leave(image for image in self._images.values() if image.wish in clear and image.image not in seen_images)

    def take_size(self, wish: Wish, size: int) -> None:
        """Note how many bytes are missing of an image, which lanes may have now, unless it has left the lists."""
        if name(wish) not in self._wishes:
            return
        image = self._images[name(wish)] = replace(self._images[name(wish)], size=size)
        self._ready.add(image.image)
        self._state.save([image])

    def wait_for(self, probe: Wish, others: Iterable[Wish]) -> None:
        """A registry that does not answer one does not answer the others: they wait as long as that one."""
        if name(probe) not in self._wishes:
            return  # it has left the lists meanwhile: the others find out by themselves
        until = self._images[name(probe)].next_try
        for other in map(name, others):
            if other in self._images and self._images[other].status is Status.FAILING:
                self._images[other] = replace(self._images[other], next_try=until)

    def hasten(self, registry: str) -> None:
        """A registry answers again: who failed because of it need not wait any longer."""
        now = self.now()
        for known, wish in self._wishes.items():
            image = self._images.get(known)
            if image is not None and transitions.is_left_alone(image, now) and wish.reference.registry == registry:
                self._images[known] = replace(image, next_try=now)
                self._state.save([self._images[known]])

    # --- what lanes did ---

    def hand_out(self, lane: Lane) -> list[Wish]:
        """What is to be granted next in this lane, together; it is the lane's until it is `finished`."""
        batch = next_batch([self._images[ready] for ready in self._ready if ready not in self.busy], lane)
        self.busy |= {image.image for image in batch}
        return [self._wishes[image.image] for image in batch]

    def finished(self, wishes: Sequence[Wish], outcomes: Mapping[str, Outcome]) -> None:
        """Note what became of what a lane had; what was not reported was not done, and is looked at again."""
        for image in map(name, wishes):
            self._finish(image, outcomes.get(image))
        self._state.save(self._images[name(wish)] for wish in wishes)

    def _finish(self, image: str, outcome: Outcome | None) -> None:
        self.busy.discard(image)
        self._ready.discard(image)
        if outcome is None or outcome.status == "stopped":
            return
        before, now = self._images[image], self.now()
        if outcome.error is None:
            after = transitions.granted(before, now)
        else:
            after = transitions.failed(before, outcome.error, now, self._chance())
        self._images[image] = after
        self._log_change(before, after)

    def _log_change(self, before: ImageState | None, after: ImageState) -> None:
        """A failure is worth an operator's attention once, until it is over."""
        was_failing = before is not None and before.status is Status.FAILING
        if after.status is Status.FAILING and not was_failing:
            log.warning("wish fails: image=%s kind=%s reason=%s", after.image, after.kind, after.reason)
        elif after.status is Status.GRANTED and (before is None or before.status is not Status.GRANTED):
            log.info("wish granted: image=%s", after.image)


def name(wish: Wish) -> str:
    """The name under which an image is known."""
    return str(wish.reference)


def _is_listed(image: str, wishes: Mapping[tuple[str, str], Sequence[Reference]]) -> bool:
    """May one of the wishes, by registry and image name, stand for the image, or for what is known by its name?"""
    try:
        reference = Reference.parse(image)
    except DuccError:  # a place in a list
        return False
    ours = wishes.get((reference.registry, reference.repository), ())
    return any(wish == reference or may_mean(wish, reference) for wish in ours)
