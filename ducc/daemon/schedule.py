"""When to ask, when to try again, and what to do first. Pure: clock and dice are handed in.

Images wait in lanes, so that what is small never waits for what is big, and what never failed never for what did:
`docs/decisions/scheduling.md`. Within a lane the order is priority, then who waited longest, so nobody starves.
"""

from collections.abc import Iterable
from enum import StrEnum

from ducc.daemon.state import ImageState

FIRST_PAUSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 15 * 60.0
LONGEST_PAUSE_OF_FAULTY_SECONDS = 24 * 3600.0
INTERVAL_JITTER = 0.1  # of the interval, to either side

SMALL_BYTES = 256 << 20  # of layers that are still to be fetched; more than that is big
BATCH_BYTES = 1 << 30  # of one revision's images; what is ready early is not kept waiting for hundreds of others
BATCH_IMAGES = 200

_FAULTS_OF_THE_IMAGE = range(40, 48)  # exit statuses, as in docs/exit-status.md: the same bytes stay faulty


class Lane(StrEnum):
    """Images of different lanes never wait for each other."""

    QUICK = "quick"
    SLOW = "slow"
    RETRY = "retry"


def interval_seconds(interval: float, chance: float) -> float:
    """How long until the next round, around *interval*; *chance* is from 0 to 1."""
    return interval * (1 + INTERVAL_JITTER * (2 * chance - 1))


def pause_seconds(attempts: int, exit_code: int, chance: float) -> float:
    """How long to leave a wish alone after *attempts* failures in a row, the last one with that exit status.

    Doubles up to a ceiling, from half to all of it by *chance*. The ceiling is a quarter of an hour, but a day for what
    is wrong with the image itself: a digest names the same bytes for ever, and a tag that moves is tried at once.
    """
    ceiling = LONGEST_PAUSE_OF_FAULTY_SECONDS if exit_code in _FAULTS_OF_THE_IMAGE else LONGEST_PAUSE_SECONDS
    longest = min(ceiling, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 30))
    return longest * (0.5 + 0.5 * chance)


def lane_of(image: ImageState) -> Lane:
    """Where an image waits. One of unknown size is taken for small: it is asked for before, so that is rare."""
    if (image.size or 0) > SMALL_BYTES:
        return Lane.SLOW
    return Lane.RETRY if image.attempts else Lane.QUICK


def next_batch(images: Iterable[ImageState], lane: Lane) -> list[ImageState]:
    """Those of the waiting *images* that are granted next in *lane*, together, in one revision; perhaps none."""
    waiting = [image for image in images if lane_of(image) is lane]
    batch: list[ImageState] = []
    size = 0
    for image in sorted(waiting, key=lambda image: (-image.priority, image.since, image.image)):
        size += image.size or 0
        if batch and (size > BATCH_BYTES or len(batch) == BATCH_IMAGES):
            break
        batch.append(image)
    return batch
