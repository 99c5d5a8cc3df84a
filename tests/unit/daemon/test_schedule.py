"""When to try again, and what goes first: tables, and rules that hold for any waiting images."""

from dataclasses import replace

import pytest

from ducc.daemon.schedule import (
    BATCH_BYTES,
    BATCH_IMAGES,
    SMALL_BYTES,
    Lane,
    interval_seconds,
    lane_of,
    next_batch,
    pause_seconds,
)
from ducc.daemon.state import ImageState, Status

GB = 1 << 30
UNREACHABLE, MALFORMED_LAYER = 80, 43


def image(name, size=1000, *, since=0, status=Status.PENDING, **more):
    return ImageState(name, name, "list", 1, status, since, size=size, **more)


@pytest.mark.parametrize(
    ("attempts", "exit_code", "at_least", "at_most"),
    [
        (1, UNREACHABLE, 7.5, 15),
        (2, UNREACHABLE, 15, 30),
        (5, UNREACHABLE, 120, 240),
        (7, UNREACHABLE, 450, 900),
        (8, UNREACHABLE, 450, 900),
        (10_000, UNREACHABLE, 450, 900),
        (1, MALFORMED_LAYER, 7.5, 15),
        (8, MALFORMED_LAYER, 960, 1920),
        (10_000, MALFORMED_LAYER, 43_200, 86_400),
    ],
)
def test_pauses_double_up_to_a_quarter_of_an_hour_or_a_day_for_faulty_images(attempts, exit_code, at_least, at_most):
    assert (pause_seconds(attempts, exit_code, 0.0), pause_seconds(attempts, exit_code, 1.0)) == (at_least, at_most)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 540), (0.5, 600), (1.0, 660)])
def test_an_interval_is_jittered_around_what_was_asked_for(chance, seconds):
    assert interval_seconds(600, chance) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("waiting", "lane"),
    [
        (image("small"), Lane.QUICK),
        (image("unknown", None), Lane.QUICK),
        (image("limit", SMALL_BYTES), Lane.QUICK),
        (image("big", SMALL_BYTES + 1), Lane.SLOW),
        (image("failed", attempts=1), Lane.RETRY),
        (image("big and failed", 20 * GB, attempts=4), Lane.SLOW),
    ],
)
def test_lanes(waiting, lane):
    assert lane_of(waiting) is lane


def test_a_small_new_image_does_not_wait_behind_a_big_one():
    waiting = [image("20 GB", 20 * GB, since=1), image("new", since=2)]
    assert [one.image for one in next_batch(waiting, Lane.QUICK)] == ["new"]
    assert [one.image for one in next_batch(waiting, Lane.SLOW)] == ["20 GB"]


def test_a_failed_image_shares_no_batch_with_new_ones():
    waiting = [image("failed", attempts=3), image("new")]
    assert [one.image for one in next_batch(waiting, Lane.QUICK)] == ["new"]
    assert [one.image for one in next_batch(waiting, Lane.RETRY)] == ["failed"]


def test_higher_priority_first_then_who_waited_longest_then_by_name():
    waiting = [image("c", since=1), image("b", since=9, priority=5), image("a", since=2), image("aa", since=1)]
    assert [one.image for one in next_batch(waiting, Lane.QUICK)] == ["b", "aa", "c", "a"]


def test_big_images_go_one_revision_each():
    waiting = [image("first", 2 * GB, since=1), image("second", 2 * GB, since=2)]
    assert [one.image for one in next_batch(waiting, Lane.SLOW)] == ["first"]


def test_batches_are_bounded_in_bytes_and_in_images_and_lose_nobody():
    waiting = [image(f"{number:05}", SMALL_BYTES // 2, since=number) for number in range(50)]
    waiting += [image(f"{number:05}", 1, since=number) for number in range(50, 1000)]
    order, left = [], {one.image: one for one in waiting}
    while batch := next_batch(left.values(), Lane.QUICK):
        assert sum(one.size for one in batch) <= BATCH_BYTES
        assert len(batch) <= BATCH_IMAGES
        order += [one.image for one in batch]
        for one in batch:
            del left[one.image]
    assert order == [one.image for one in waiting]


def test_whoever_waits_is_overtaken_only_by_priority():
    first = image("first", since=0)
    for newer in range(1, 500):
        batch = next_batch([first, *(image(f"new {newer} {n}", since=newer) for n in range(300))], Lane.QUICK)
        assert batch[0] == first
    assert next_batch([first, replace(first, image="urgent", since=9, priority=1)], Lane.QUICK)[0].image == "urgent"
