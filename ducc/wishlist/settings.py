"""What a wish may say besides the image: platforms, products, credentials, retention, priority, which tags.

Every setting has a default, and the defaults together are what a plain line of `input` has always meant. No I/O: what
is to be known of registries is handed in, and so may be the time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from ducc.errors import BadInput
from ducc.image.manifest import Platform
from ducc.image.platform import LINUX_AMD64
from ducc.wishlist.glob import matches

if TYPE_CHECKING:
    from ducc.wishlist.versions import VersionRange

ALL_PLATFORMS = None  # as `WishSettings.platforms`: every platform that the image's index names
FOREVER = timedelta.max  # as `WishSettings.keep`
PRODUCTS = ("layers", "flat")
ORDERS = ("version", "date")
MAX_TAGS = 2000  # for one wish that does not say how many it wants; and as many are asked for their date
HIGHEST_PRIORITY = 1000

Created = Callable[[str], datetime | None]


class TooManyTags(BadInput):
    """A wildcard stands for more tags than anybody can have meant."""


@dataclass(frozen=True, slots=True)
class TagFilter:
    """Which of the tags that match a wildcard are wanted; without limits, all."""

    newest: int | None = None  # so many, the newest
    by: str = "version"  # what makes one newer: one of ORDERS
    semver: "VersionRange | None" = None
    max_age: timedelta | None = None
    exclude: tuple[str, ...] = ()  # patterns with *

    def choose(self, tags: Iterable[str], created: Created | None = None, now: datetime | None = None) -> list[str]:
        """The tags that are wanted, each once, sorted by text.

        *created* tells when a tag's image was made, with the time zone. It is asked only if `max_age` or `by: date`
        need to know, once for a tag, from the newest version down, and no more once `newest` are found. A tag that it
        knows no date of is older than all others, and not too old: nothing goes because something is not known. *now*
        is the clock's unless it is handed in. Raises `TooManyTags`, and what *created* raises.
        """
        names = {tag for tag in tags if self._is_wanted(tag)}
        if self.newest is None and self.max_age is None:
            return sorted(_bounded(names))
        from ducc.wishlist.versions import order  # takes long to import, and few wishes choose among versions

        dated = cache(created) if created is not None else _no_date
        newest_first = sorted(names, key=order, reverse=True)
        if self.by == "date" and self.newest is not None:
            newest_first = sorted(_bounded(newest_first), key=lambda tag: _date_order(dated(tag)), reverse=True)
        wanted = iter(newest_first)
        if self.max_age is not None:
            oldest = _before(now or datetime.now(UTC), self.max_age)
            wanted = (tag for tag in _bounded(newest_first) if (dated(tag) or oldest) >= oldest)
        return sorted(islice(wanted, self.newest))

    def _is_wanted(self, tag: str) -> bool:
        return not any(matches(pattern, tag) for pattern in self.exclude) and (
            self.semver is None or self.semver.has(tag)
        )


@dataclass(frozen=True, slots=True)
class WishSettings:
    """The settings of one wish."""

    platforms: tuple[Platform, ...] | None = (LINUX_AMD64,)  # normalised, each once; ALL_PLATFORMS
    products: frozenset[str] = frozenset(PRODUCTS)
    credentials: str | None = None  # their name among the operator's registries
    keep: timedelta | None = None  # how long an image stays that is no more wished for; None: prune's grace period
    priority: int = 0  # higher ones first
    ignore_errors: bool = False  # its failure is told and changes no exit status
    tags: TagFilter = field(default_factory=TagFilter)


def _bounded(names: Iterable[str]) -> Iterator[str]:
    for count, name in enumerate(names):
        if count == MAX_TAGS:
            raise TooManyTags(f"more than {MAX_TAGS} tags match: choose among them, for example tags: {{newest: 10}}")
        yield name


def _no_date(tag: str) -> datetime | None:
    return None


def _date_order(date: datetime | None) -> tuple[bool, datetime]:
    return date is not None, date or datetime.min.replace(tzinfo=UTC)


def _before(now: datetime, age: timedelta) -> datetime:
    try:
        return now - age
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
