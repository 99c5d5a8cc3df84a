"""What the daemon lets others do: ask registries, measure images, grant wishes. The seam that tests replace."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from ducc.convert.observer import Observer
from ducc.convert.report import Report
from ducc.errors import DuccError
from ducc.wishlist.wish import Wish


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at one wish found: one of these for each image it stands for, or one with the *error*.

    *of* is the wish as it stands in the list, *wish* the same for the one image. *digest* is what the registry names.
    """

    of: Wish
    wish: Wish
    digest: str = ""
    is_published: bool = False
    error: DuccError | None = None

    @property
    def image(self) -> str:
        return str(self.wish.reference)


class Work(Protocol):
    """Work on one repository. Called from several threads. When *stop* is set, all of it ends within seconds."""

    def look(self, wishes: Sequence[Wish], stop: Event) -> list[Seen]:
        """Ask registries what *wishes* name now, and the repository what is published of it. Wishes fail alone.

        Raises `Stopped`.
        """

    def sizes(self, wishes: Sequence[Wish], stop: Event) -> Iterator[tuple[Wish, int]]:
        """How many bytes of layers are missing of each image, as they come; 0 for no answer. Raises `Stopped`."""

    def grant(self, wishes: Sequence[Wish], stop: Event, observer: Observer) -> Report:
        """Publish images in one revision; what is not reported was not done."""

    def limits(self) -> dict[str, dict[str, Any]]:
        """What registries have told of their limits, by registry; JSON values."""

    def reload(self) -> None:
        """Read settings and credentials anew. Raises `DuccError`; then those that were read before are good."""
