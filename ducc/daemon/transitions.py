"""What becomes of an image's state when somebody looked at it, tried it, or stopped wishing for it. Pure.

`granted` and `pending` begin anew when they are entered; an image is `failing` from its first failure on until it is
granted or its tag moves, however often it is tried in between.
"""

from dataclasses import replace

from ducc.daemon.schedule import pause_seconds
from ducc.daemon.state import ImageState, Status
from ducc.daemon.work import Seen
from ducc.errors import DuccError
from ducc.wishlist.wish import BrokenWish, Wish


def new(wish: Wish, of: Wish, now: int) -> ImageState:
    """An image that is wished for, of which nothing is known."""
    return ImageState(str(wish.reference), str(of.reference), of.file, of.line, Status.PENDING, now)


def after_look(old: ImageState | None, seen: Seen, now: int, chance: float) -> ImageState:
    """What is known after a registry was asked."""
    image = _wished(old, seen, now)
    if seen.error is not None:
        return failed(replace(image, digest=""), seen.error, now, chance)
    if seen.is_published:
        return granted(replace(image, digest=seen.digest), now)
    if image.digest == seen.digest:
        return image if image.status is not Status.GRANTED else replace(image, status=Status.PENDING, since=now)
    since = image.since if image.status is Status.PENDING else now
    return replace(image, status=Status.PENDING, since=since, attempts=0, next_try=0, size=None, digest=seen.digest)


def is_wanted(image: ImageState, now: int, *, hurry: bool) -> bool:
    """Should it be granted now? One that failed is left alone for its pause, except in a hurry."""
    return image.status is Status.PENDING or (image.status is Status.FAILING and (hurry or image.next_try <= now))


def is_left_alone(image: ImageState | None, now: int) -> bool:
    """Is there no use in asking for it yet? What has a digest failed later, and its tag may have moved."""
    return image is not None and image.status is Status.FAILING and not image.digest and image.next_try > now


def granted(image: ImageState, now: int) -> ImageState:
    """It is published as the registry has it."""
    since = image.since if image.status is Status.GRANTED else now
    return replace(
        image, status=Status.GRANTED, since=since, granted_at=now, reason="", kind="", attempts=0, next_try=0, size=0
    )


def failed(image: ImageState, error: DuccError, now: int, chance: float) -> ImageState:
    """It could not be asked for, or not be published."""
    attempts = image.attempts + 1
    return replace(
        image,
        status=Status.FAILING,
        since=image.since if image.status is Status.FAILING else now,
        reason=str(error).removeprefix(f"{image.image}: "),
        kind=type(error).__name__,
        attempts=attempts,
        next_try=now + round(pause_seconds(attempts, error.exit_code, chance)),
    )


def broken(old: ImageState | None, wish: BrokenWish, now: int) -> ImageState:
    """A line of a list that can't be used as it is; there is no use in trying again before somebody mends it."""
    place = place_of(wish)
    since = old.since if old is not None else now
    kind, reason = type(wish.error).__name__, str(wish.error)
    return ImageState(place, place, wish.file, wish.line, Status.FAILING, since, reason, kind, attempts=1)


def place_of(wish: BrokenWish) -> str:
    """The name under which a broken line is known."""
    return f"{wish.file}:{wish.line}:{wish.column}"


def left(image: ImageState, now: int) -> ImageState | None:
    """It is not wished for any more; None when nothing of it was published, so that nothing need be said."""
    if not image.granted_at:
        return None
    return image if image.left_at is not None else replace(image, left_at=now)


def _wished(old: ImageState | None, seen: Seen, now: int) -> ImageState:
    image = old or new(seen.wish, seen.of, now)
    priority = seen.of.settings.priority
    return replace(
        image, wish=str(seen.of.reference), source=seen.of.file, line=seen.of.line, priority=priority, left_at=None
    )
