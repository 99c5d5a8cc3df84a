"""What is wrong with wishlists: offline what is written, online what is not there.

Each finding has its place, so that an author sees it where it can be mended. With the lines that a change touches, only
what stands on them counts; what was wrong before is not this author's. What breaks a wishlist as a whole counts always.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from ducc.errors import BadInput, DuccError
from ducc.image.reference import Reference
from ducc.registry.client import Registry
from ducc.wishlist.difference import ChangedLines
from ducc.wishlist.expand import expand
from ducc.wishlist.sources import Source
from ducc.wishlist.versions import order
from ducc.wishlist.wish import BrokenWish, DuplicateWish, MalformedWishlist, Wish, Wishlist


class NothingMatches(BadInput):
    """A wildcard that stands for no image."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to tell an author. *kind* is the class of the error; *retryable* ones may be gone later."""

    file: str
    line: int
    column: int
    kind: str
    text: str
    is_warning: bool = False
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """One wishlist, looked at offline. *wishes* are those that are well formed and to be looked at."""

    file: str
    findings: tuple[Finding, ...]
    wishes: tuple[Wish, ...]
    is_touched: bool = True  # by the change, if one is looked at


def check_offline(source: Source, changed: ChangedLines | None = None) -> Checked:
    """Read one wishlist, unless *changed* does not touch it."""
    lines = None if changed is None else changed.of(os.path.abspath(source.name))
    if changed is not None and lines is None:
        return Checked(source.name, (), (), is_touched=False)
    loaded = source.load()
    if loaded.error is not None:
        return Checked(source.name, tuple(_whole(loaded.error, source.name)), ())
    wishlist = loaded.wishlist or Wishlist(source.name, "", (), ())
    broken = [one for one in wishlist.broken if lines is None or _is_touched(one, wishlist, lines)]
    wishes = [one for one in wishlist.wishes if lines is None or _is_touched(one, wishlist, lines)]
    return Checked(source.name, tuple(map(_of_broken, broken)), tuple(wishes))


def check_online(wishes: list[Wish], registry: Registry, askers: Executor) -> Iterator[Finding]:
    """Ask the registries whether each wish can be granted now; in the order of the wishes.

    Of a wildcard the newest match is looked at. Dates are not asked for.
    """
    for findings in askers.map(lambda wish: list(dict.fromkeys(_ask(wish, registry))), wishes):
        yield from findings


def _whole(error: DuccError, file: str) -> Iterator[Finding]:
    kind = type(error).__name__
    if isinstance(error, MalformedWishlist):
        for fault in error.faults:
            yield Finding(fault.file, fault.line, fault.column, kind, fault.text)
    else:
        yield Finding(file, 1, 1, kind, str(error).removeprefix(f"{file}: "), retryable=error.retryable)


def _of_broken(broken: BrokenWish) -> Finding:
    return Finding(broken.file, broken.line, broken.column, type(broken.error).__name__, str(broken.error))


def _is_touched(wish: Wish | BrokenWish, wishlist: Wishlist, changed: frozenset[int]) -> bool:
    """Does a changed line say something about the wish? Of two equal ones the first may be the one that is new."""
    spans = [(wish.line, max(wish.line, wish.last_line))]
    if wishlist.shared_lines is not None:
        spans.append(wishlist.shared_lines)
    if isinstance(wish, BrokenWish) and isinstance(wish.error, DuplicateWish):
        spans.append((wish.error.first_line, wish.error.first_line))
    return any(first <= line <= last for line in changed for first, last in spans)


def _ask(wish: Wish, registry: Registry) -> Iterator[Finding]:
    try:
        registry = registry.using(wish.settings.credentials)
        reference = _one(wish, registry)
    except DuccError as error:
        yield _failure(wish, error)
        return
    for platform in wish.settings.platforms or (None,):
        try:
            images = registry.resolve_platforms(reference, None if platform is None else [platform])
        except DuccError as error:
            yield _failure(wish, error)
        else:
            for warning in (text for _, image in images for text in image.warnings):
                yield Finding(wish.file, wish.line, 1, "Warning", warning, is_warning=True)


def _one(wish: Wish, registry: Registry) -> Reference:
    """The image, or of a wildcard the newest that matches."""
    if not wish.reference.is_wildcard:
        return wish.reference
    matching = expand(wish.reference, registry.tags(wish.reference), wish.settings.tags)
    if not matching:
        raise NothingMatches(f"{wish.reference}: no tag matches, or none that its filter lets through")
    return max(matching, key=lambda reference: order(reference.tag or ""))


def _failure(wish: Wish, error: DuccError) -> Finding:
    kind, ignored = type(error).__name__, wish.settings.ignore_errors
    return Finding(wish.file, wish.line, 1, kind, str(error), is_warning=ignored, retryable=error.retryable)
