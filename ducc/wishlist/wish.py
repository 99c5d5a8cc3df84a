"""Wishes, wishlists, and what can be wrong with them."""

from dataclasses import dataclass, field

from ducc.errors import BadInput, DuccError
from ducc.image.reference import Reference
from ducc.wishlist.settings import WishSettings

MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of a wishlist; lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class MalformedWishlist(BadInput):
    """A wishlist that can't be used as a whole. The text has one line for each fault."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


class UnreadableWishlist(BadInput):
    """The file of a wishlist can't be opened or read."""


class WrongType(BadInput):
    """An item of `input` is not what an item can be."""


class BadSetting(BadInput):
    """An item of `input` has settings that are none, or have values that they can't have."""


class DuplicateWish(BadInput):
    """An item of `input` names an image, or a place for one, that an earlier one has."""

    def __init__(self, reference: Reference, first_line: int) -> None:
        super().__init__(f"{reference}: line {first_line} has the same image name")
        self.first_line = first_line


@dataclass(frozen=True, slots=True)
class Wish:
    """One item of `input`: an image, or with a wildcard many, that a repository is to hold."""

    reference: Reference
    fqrn: str
    user: str | None
    output_format: str | None
    file: str
    line: int
    settings: WishSettings = field(default_factory=WishSettings)
    last_line: int = 0  # the item reaches to here; 0 if it has one line only


@dataclass(frozen=True, slots=True)
class BrokenWish:
    """One item of `input` that can't be granted as it is written; the others are not concerned."""

    line: int
    column: int
    text: str  # as far as it can be shown
    error: DuccError
    file: str
    last_line: int = 0  # as in `Wish`

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.error}"


@dataclass(frozen=True, slots=True)
class Wishlist:
    """The wishes of one file, in its order. *shared_lines* say something about all of them: from, to."""

    path: str
    fqrn: str
    wishes: tuple[Wish, ...]
    broken: tuple[BrokenWish, ...]
    shared_lines: tuple[int, int] | None = None


class Places:
    """Remembers which image names of a wishlist are taken, so that each is wished for once."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str, str], int] = {}

    def take(self, reference: Reference, line: int) -> None:
        """Raise `DuplicateWish` if an earlier line would be shown at the same path, whatever its scheme or digest."""
        place = (reference.registry, reference.repository, reference.tag or str(reference.digest))
        first = self._lines.setdefault(place, line)
        if first != line:
            raise DuplicateWish(reference, first)
