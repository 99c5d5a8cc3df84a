"""A keeper at work, with registries and grants that do what a test says."""

import threading
import time
from contextlib import contextmanager

import pytest

from ducc.convert.report import Outcome, Report
from ducc.daemon.events import Events
from ducc.daemon.keeper import Keeper, Order
from ducc.daemon.schedule import SMALL_BYTES
from ducc.daemon.state import State, Status
from ducc.daemon.work import Seen
from ducc.layer.entries import DiffIdMismatch
from ducc.transport import Unreachable
from ducc.wishlist.glob import matches
from ducc.wishlist.parse import parse_wishlist

FQRN = "images.example.org"
PATIENCE_SECONDS = 60


class World:
    """What registries have (image → digest, size), which answer, and what is granted how; a `Work`."""

    def __init__(self):
        self.tags = {}
        self.published = {}
        self.down = set()
        self.silent = set()
        self.faulty = set()
        self.looked, self.sized, self.batches = [], [], []
        self.hold = {}  # image → event that its grant waits for

    def push(self, image, digest="one", size=1000):
        self.tags[image] = digest, size

    def look(self, wishes, stop):
        while wishes[0].reference.registry in self.silent and not stop.is_set():
            time.sleep(0.005)
        self.looked.append([str(wish.reference) for wish in wishes])
        return [seen for wish in wishes for seen in self._look(wish)]

    def _look(self, wish):
        reference = wish.reference
        if reference.registry in self.down:
            return [Seen(wish, wish, error=Unreachable(f"{reference}: silent"))]
        if not reference.is_wildcard:
            return [self._seen(wish, wish)]
        prefix = f"{reference.base_url}/{reference.repository}:"
        tags = [image.removeprefix(prefix) for image in self.tags if image.startswith(prefix)]
        found = [reference.with_tag(tag) for tag in sorted(tags) if matches(reference.tag, tag)]
        return [self._seen(wish, type(wish)(**{**fields(wish), "reference": one})) for one in found]

    def _seen(self, of, wish):
        digest = self.tags[str(wish.reference)][0]
        return Seen(of, wish, digest, self.published.get(str(wish.reference)) == digest)

    def sizes(self, wishes, stop):
        self.sized += [str(wish.reference) for wish in wishes]
        for wish in wishes:
            yield wish, self.tags[str(wish.reference)][1]

    def grant(self, wishes, stop, observer):
        images = [str(wish.reference) for wish in wishes]
        self.batches.append(images)
        outcomes = []
        for image in images:
            while image in self.hold and not self.hold[image].wait(0.01):
                if stop.is_set():
                    return Report((), None, 0.0)
            if image in self.faulty:
                outcomes.append(Outcome(image, "failed", DiffIdMismatch("layer", None, None)))
            else:
                self.published[image] = self.tags[image][0]
                outcomes.append(Outcome(image, "published"))
        return Report(tuple(outcomes), len(self.batches) + 1, 0.0)

    def limits(self):
        return {}

    def reload(self):
        pass


def fields(value):
    return {name: getattr(value, name) for name in value.__slots__}


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


def wishlist(*images, path="list.yaml"):
    text = "\n".join(["version: 1", f"cvmfs_repo: {FQRN}", "input:", *(f"  - {image}" for image in images)])
    return parse_wishlist(text.encode(), path)


class Desk:
    def __init__(self, world, clock, state):
        self.world, self.clock, self.state = world, clock, state
        self.keeper = Keeper(FQRN, world, state, Events(), clock, lambda: 0.0)

    def order(self, *lists, complete=True, hurry=False):
        self.keeper.order(Order(lists, complete, hurry))

    def wish(self, *images, **options):
        self.order(wishlist(*images), **options)

    def statuses(self):
        return {image.image: str(image.status) for image in self.state.images() if image.left_at is None}

    def left(self):
        return {image.image for image in self.state.images() if image.left_at is not None}

    def until(self, condition, what="what was waited for"):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what} never came: {self.statuses()}, {self.world.batches}"
            time.sleep(0.005)

    def rounds(self, number):
        """Until so many looks have been answered, and nothing is to be done."""
        keeper = self.keeper
        self.until(
            lambda: (
                len(self.world.looked) >= number
                and not (keeper._order or keeper._asked or keeper._looking or keeper._book.busy)
            )
        )

    def pass_time(self, seconds):
        self.clock.now += seconds
        with self.keeper._changed:
            self.keeper._changed.notify_all()


@pytest.fixture
def world():
    return World()


@pytest.fixture
def desk(world, tmp_path):
    with working(world, tmp_path / "state") as desk:
        yield desk


@contextmanager
def working(world, path, clock=None):
    with State(path) as state:
        desk = Desk(world, clock or Clock(), state)
        desk.keeper.start()
        try:
            yield desk
        finally:
            desk.keeper.stop()
            assert desk.keeper.join(PATIENCE_SECONDS)


A, B, C = "https://r.example/a:1", "https://r.example/b:1", "https://s.example/c:1"


def test_what_is_wished_for_is_granted(world, desk):
    world.push(A)
    world.push(C)
    desk.wish(A, C)
    desk.until(lambda: desk.statuses() == {A: "granted", C: "granted"})
    desk.until(desk.state.runs)  # noted after the images
    assert desk.state.runs()[0].published >= 1


def test_what_is_published_is_neither_measured_nor_granted(world, desk):
    world.push(A)
    world.published[A] = "one"
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "granted"})
    assert (world.sized, world.batches) == ([], [])


def test_a_tag_that_moved_is_granted_again_and_only_that_one(world, desk):
    world.push(A)
    world.push(B)
    desk.wish(A, B)
    desk.until(lambda: desk.statuses() == {A: "granted", B: "granted"})
    before = len(world.batches)
    world.push(B, "two")
    desk.wish(A, B)
    desk.until(lambda: world.published[B] == "two")
    assert world.batches[before:] == [[B]]


def test_a_small_image_does_not_wait_for_a_big_one(world, desk):
    world.push(A, size=20 << 30)
    world.hold[A] = threading.Event()
    desk.wish(A)
    desk.until(lambda: [A] in world.batches)
    world.push(B)
    desk.wish(A, B)
    desk.until(lambda: desk.statuses() == {A: "pending", B: "granted"})
    world.hold[A].set()
    desk.until(lambda: desk.statuses() == {A: "granted", B: "granted"})
    assert world.batches.count([A]) == 1


def test_a_failing_image_is_tried_again_after_its_pause_beside_new_ones(world, desk, caplog):
    world.push(A)
    world.faulty.add(A)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    (image,) = desk.state.images()
    assert (image.kind, image.attempts) == ("DiffIdMismatch", 1)
    assert image.next_try > desk.clock()
    desk.wish(A)
    desk.rounds(2)
    assert world.batches == [[A]]
    world.hold[A] = threading.Event()
    desk.pass_time(60)
    desk.until(lambda: world.batches == [[A], [A]])
    world.push(B)
    desk.wish(A, B)
    desk.until(lambda: desk.statuses().get(B) == "granted")
    world.hold[A].set()
    desk.until(lambda: desk.state.images()[0].attempts == 2)
    world.faulty.clear()
    desk.pass_time(3600)
    desk.until(lambda: desk.statuses() == {A: "granted", B: "granted"})
    assert caplog.text.count("wish fails") == 1


def test_a_failing_image_whose_tag_moves_is_tried_at_once(world, desk, caplog):
    world.push(A)
    world.faulty.add(A)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    world.faulty.clear()
    world.push(A, "mended")
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "granted"})


def test_in_a_hurry_nobody_waits_for_a_pause(world, desk, caplog):
    world.push(A)
    world.faulty.add(A)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    world.faulty.clear()
    desk.wish(A, hurry=True)
    desk.until(lambda: desk.statuses() == {A: "granted"})


def test_a_registry_that_is_down_costs_its_own_images_only_and_one_question(world, desk, caplog):
    world.push(C)
    world.down.add("r.example")
    desk.wish(A, B, C)
    desk.until(lambda: desk.statuses() == {A: "failing", B: "failing", C: "granted"})
    asked = len(world.looked)
    desk.pass_time(3600)
    desk.until(lambda: len(world.looked) == asked + 1)
    assert world.looked[-1] in ([A], [B])


def test_a_registry_that_answers_again_is_believed_at_once(world, desk, caplog):
    for image in (A, B):
        world.push(image)
    world.down.add("r.example")
    desk.wish(A, B)
    desk.until(lambda: desk.statuses() == {A: "failing", B: "failing"})
    world.down.clear()
    soonest = min(image.next_try for image in desk.state.images())
    desk.pass_time(soonest - desk.clock())
    desk.until(lambda: desk.statuses() == {A: "granted", B: "granted"})


def test_a_registry_that_is_silent_holds_up_nobody_else(world, desk):
    world.push(A)
    world.push(C)
    world.silent.add("s.example")
    desk.wish(A, C)
    desk.until(lambda: desk.statuses() == {A: "granted"})
    world.push(B)
    desk.wish(A, B, C)
    desk.until(lambda: desk.statuses() == {A: "granted", B: "granted"})
    world.silent.clear()
    desk.until(lambda: desk.statuses() == {A: "granted", B: "granted", C: "granted"})


def test_who_is_due_waits_idly_while_no_more_registries_can_be_asked(world, desk, caplog):
    world.down.add("r.example")
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    others = [f"https://{number}.example/a:1" for number in range(16)]
    world.silent.update(f"{number}.example" for number in range(16))
    for other in others:
        world.push(other)
    desk.wish(*others, A)
    desk.until(lambda: len(desk.keeper._looking) == 16)
    desk.pass_time(3600)
    with desk.keeper._changed:
        assert desk.keeper._book.to_be_retried()
        assert desk.keeper._seconds_to_retry() is None
    world.silent.clear()
    desk.until(lambda: len(desk.state.images()) == 17 and "pending" not in desk.statuses().values())


def test_published_images_of_a_registry_that_is_down_stay_and_their_age_is_known(world, desk, caplog):
    world.push(A)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "granted"})
    granted_at = int(desk.clock())
    world.down.add("r.example")
    desk.pass_time(24 * 3600)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    (image,) = desk.state.images()
    assert (image.granted_at, image.since) == (granted_at, granted_at + 24 * 3600)
    assert world.published == {A: "one"}


def test_wildcards_stand_for_what_is_there(world, desk):
    for tag in ("1", "2", "x1"):
        world.push(f"https://r.example/a:{tag}")
    desk.wish("'https://r.example/a:*1'")
    desk.until(lambda: desk.statuses() == {A: "granted", "https://r.example/a:x1": "granted"})


def test_a_wildcard_whose_tags_can_not_be_read_fails_alone_and_keeps_its_images(world, desk, caplog):
    world.push(A)
    desk.wish("'https://r.example/a:*'")
    desk.until(lambda: desk.statuses() == {A: "granted"})
    world.down.add("r.example")
    desk.wish("'https://r.example/a:*'")
    desk.until(lambda: desk.statuses() == {A: "granted", "https://r.example/a:*": "failing"})
    world.down.clear()
    desk.wish("'https://r.example/a:*'", hurry=True)
    desk.until(lambda: desk.statuses() == {A: "granted"})


@pytest.mark.parametrize(
    ("first", "second", "complete", "left"),
    [
        ([A, B], [A], True, {B}),
        ([A, B], [A], False, {B}),  # the list that had it was read
        (["'https://r.example/a:*'"], ["'https://r.example/a:2'"], True, {A}),
    ],
)
def test_what_leaves_its_list_is_noted(world, desk, first, second, complete, left):
    world.push(A)
    world.push(B)
    world.push("https://r.example/a:2")
    desk.wish(*first)
    desk.until(lambda: desk.statuses() and set(desk.statuses().values()) == {"granted"})
    desk.wish(*second, complete=complete)
    desk.until(lambda: desk.left() == left)
    assert left <= world.published.keys()
    desk.wish(*first)
    desk.until(lambda: not desk.left())


def test_what_leaves_its_list_while_it_is_measured_stops_nothing(world, desk):
    world.push(A)
    world.push(B)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "granted"})
    world.push(A, "two")

    def leave_meanwhile(wishes, stop):
        world.sizes = sizes
        desk.wish(B)
        desk.until(lambda: desk.left() == {A})
        yield from sizes(wishes, stop)

    sizes, world.sizes = world.sizes, leave_meanwhile
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {B: "granted"})
    assert world.published == {A: "one", B: "one"}


def test_of_a_list_that_is_missing_nothing_leaves(world, desk):
    world.push(A)
    world.push(B)
    desk.order(wishlist(A, path="one"), wishlist(B, path="two"))
    desk.until(lambda: desk.statuses() == {A: "granted", B: "granted"})
    desk.order(wishlist(A, path="one"), complete=False)
    desk.rounds(2)
    assert desk.left() == set()
    desk.order(wishlist(A, path="one"), complete=True)
    desk.until(lambda: desk.left() == {B})


def test_a_broken_line_is_shown_until_it_is_mended_and_told_once(world, desk, caplog):
    world.push(A)
    for _ in range(2):
        desk.order(wishlist(A, "3.10"))
        desk.until(lambda: "failing" in desk.statuses().values())
    desk.rounds(2)
    assert [record.getMessage().split()[:3] for record in caplog.records if record.levelname == "WARNING"] == [
        ["wish", "fails:", "image=list.yaml:5:5"]
    ]
    (place,) = [name for name, status in desk.statuses().items() if status == "failing"]
    assert place.startswith("list.yaml:5:")
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "granted"})


def test_without_state_everything_is_asked_once_more_and_nothing_is_granted_twice(world, tmp_path):
    world.push(A)
    world.push(B)
    for name in ("one", "two"):
        with working(world, tmp_path / name) as desk:
            desk.wish(A, B)
            desk.until(lambda desk=desk: desk.statuses() == {A: "granted", B: "granted"})
    assert sorted(image for batch in world.batches for image in batch) == [A, B]


def test_a_new_process_goes_on_where_the_last_one_was_stopped(world, tmp_path, caplog):
    world.push(A)
    world.push(B)
    world.faulty.add(B)
    world.hold[A] = threading.Event()
    clock = Clock()
    with working(world, tmp_path / "state", clock) as desk:
        desk.wish(B)
        desk.until(lambda: desk.statuses() == {B: "failing"})
        desk.wish(A, B)
        desk.until(lambda: [A] in world.batches)
    world.hold.clear()
    with working(world, tmp_path / "state", clock) as desk:
        assert desk.statuses() == {A: "pending", B: "failing"}
        desk.wish(A, B)
        desk.until(lambda: desk.statuses() == {A: "granted", B: "failing"})
    assert world.batches.count([B]) == 1


def test_a_batch_that_fails_as_a_whole_is_each_images_failure(world, desk, caplog):
    world.push(A)
    world.grant = lambda *_: 1 / 0
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    assert desk.state.images()[0].kind == "UnexpectedFailure"


def test_a_look_that_fails_as_a_whole_is_each_wishes_failure_and_no_end(world, desk, caplog):
    look, world.look = world.look, lambda *_: 1 / 0
    world.push(A)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    world.look = look
    desk.wish(A, hurry=True)
    desk.until(lambda: desk.statuses() == {A: "granted"})


def test_images_are_measured_once(world, desk, caplog):
    world.push(A, size=SMALL_BYTES * 2)
    world.faulty.add(A)
    desk.wish(A)
    desk.until(lambda: desk.statuses() == {A: "failing"})
    desk.wish(A, hurry=True)
    desk.until(lambda: len(world.batches) == 2 and desk.keeper.counts()[Status.FAILING] == 1)
    assert world.sized == [A]


def test_stopping_ends_what_runs_and_leaves_it_for_the_next(world, tmp_path):
    world.push(A)
    world.hold[A] = threading.Event()
    with working(world, tmp_path / "state") as desk:
        desk.wish(A)
        desk.until(lambda: world.batches)
        started = time.monotonic()
        desk.keeper.stop()
        assert desk.keeper.join(60)
        assert time.monotonic() - started < 60
        assert desk.statuses() == {A: "pending"}


class _LateStop(threading.Event):
    """An event that is set, by somebody else's *stop*, just after it was asked for the first time."""

    def __init__(self, stop):
        super().__init__()
        self._stops = [threading.Thread(target=stop)]

    def is_set(self):
        answer = super().is_set()
        while self._stops and not answer:
            stop = self._stops.pop()
            stop.start()
            stop.join(0.5)  # it can't end while the asker holds the lock, as it should
        return answer


def test_a_stop_that_comes_between_a_look_and_the_wait_for_the_next_is_heard(world, tmp_path):
    with State(tmp_path / "state") as state:
        keeper = Desk(world, Clock(), state).keeper
        keeper._stop = _LateStop(keeper.stop)
        keeper.start()
        assert keeper.join(PATIENCE_SECONDS)
