"""A revision to stay at, whatever is published: named by its root hash, by a tag, or by a time."""

from dataclasses import dataclass
from datetime import datetime

from ducc.catalog.history import History, Tag
from ducc.errors import DuccError


class NoSuchRevision(DuccError):
    """The repository has no revision of the name that was asked for."""

    exit_code = 57

    def __init__(self, fqrn: str, wanted: str) -> None:
        super().__init__(f"{fqrn} has no revision {wanted}; see its tags")


@dataclass(frozen=True, slots=True)
class Pin:
    """One of the three is set. *before* is a time: the newest tagged revision that is not younger is meant."""

    root_hash: bytes | None = None
    tag: str = ""
    before: datetime | None = None

    def __str__(self) -> str:
        if self.root_hash is not None:
            return self.root_hash.hex()
        return self.tag or f"of {self.before:%Y-%m-%dT%H:%M:%SZ} or before"

    def find(self, history: History) -> Tag:
        """The tag that names the revision, where that is not said by hash. Raises `NoSuchRevision`."""
        if self.before is None:
            found = history.get(self.tag)
        else:
            last = self.before.timestamp()
            # Revision 0 is none: such tags keep trees alive that are no whole repositories.
            fitting = [tag for tag in history.tags() if tag.timestamp <= last and tag.revision and not tag.branch]
            found = max(fitting, key=lambda tag: (tag.timestamp, tag.revision), default=None)
        if found is None:
            raise NoSuchRevision(history.fqrn, str(self))
        return found
