"""Wishes, and what is published, become steps. What this asks a registry for is one digest a wish."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from ducc import layout
from ducc.convert.published import Published
from ducc.errors import DuccError, UnexpectedFailure
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.registry.client import Registry
from ducc.wishlist.expand import expand
from ducc.wishlist.parse import BrokenWish, Wish, Wishlist


@dataclass(frozen=True, slots=True)
class Convert:
    """An image that is not published, or whose tag names another image by now. *source_digest* is what it names."""

    reference: Reference
    source_digest: Digest


@dataclass(frozen=True, slots=True)
class Keep:
    """An image that is published as it is."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A wish that can't even be looked at. *wish* is how its author wrote it."""

    wish: str
    error: DuccError


Step = Convert | Keep | GiveUp
T = TypeVar("T")

log = logging.getLogger(__name__)


def plan(wishlists: Iterable[Wishlist], published: Published, registry: Registry, askers: Executor) -> list[Step]:
    """Return one step for each image wished for, each image once, in the order of the wishes.

    *askers* put the questions to the registries, several at a time; what is published is looked up here meanwhile.
    """
    steps: list[Step] = []
    wishes: list[Wish] = []
    for wishlist in wishlists:
        steps.extend(map(_broken, wishlist.broken))
        wishes.extend(wishlist.wishes)
    references: list[Reference] = []
    for expanded in askers.map(lambda wish: _references(wish, registry), wishes):
        steps.extend(one for one in expanded if isinstance(one, GiveUp))
        references.extend(one for one in expanded if isinstance(one, Reference))
    wanted = _each_once(references)
    digests = askers.map(lambda one: _or_give_up(str(one), lambda: [registry.manifest_digest(one)])[0], wanted)
    return [*(_step(one, digest, published) for one, digest in zip(wanted, digests, strict=True)), *steps]


def _broken(wish: BrokenWish) -> GiveUp:
    return GiveUp(f"{wish.file}:{wish.line}:{wish.column}", wish.error)


def _references(wish: Wish, registry: Registry) -> Sequence[Reference | GiveUp]:
    if not wish.reference.is_wildcard:
        return [wish.reference]
    return _or_give_up(str(wish.reference), lambda: expand(wish.reference, registry.tags(wish.reference)))


def _step(reference: Reference, digest: Digest | GiveUp, published: Published) -> Step:
    """Compare what a reference names with what is published of it."""

    def compare() -> list[Step]:
        if isinstance(digest, GiveUp):
            return [digest]
        record = published.image(reference)
        unchanged = record is not None and record.source_digest == digest
        return [Keep(reference) if unchanged else Convert(reference, digest)]

    return _or_give_up(str(reference), compare)[0]


def _or_give_up(wish: str, ask: Callable[[], Sequence[T]]) -> Sequence[T | GiveUp]:
    try:
        return ask()
    except DuccError as error:
        return [GiveUp(wish, error)]
    except Exception as error:  # a fault of ours in one wish must not cost the others
        log.error("unexpected failure: wish=%s", wish, exc_info=error)
        return [GiveUp(wish, UnexpectedFailure(error))]


def _each_once(references: Iterable[Reference]) -> list[Reference]:
    """Two references with one public path are one wish."""
    return list({layout.public_link(reference): reference for reference in references}.values())
