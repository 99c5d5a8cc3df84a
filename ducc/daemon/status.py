"""What the operator is told of wishes: by the daemon's state where there is one, and by the repository in any case."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ducc import layout
from ducc.convert.published import Published
from ducc.convert.record import ImageRecord
from ducc.daemon.removals import Schedule
from ducc.daemon.state import ImageState, Run
from ducc.errors import DuccError
from ducc.image.reference import Reference
from ducc.publish.repository import Head, Repository


@dataclass(frozen=True, slots=True)
class Shown:
    """One image. *status* is as in the state, `left` if nobody wishes for it, `published` if only that is known.

    Times are unix seconds; *due* is when it may be removed.
    """

    image: str
    status: str
    since: int | None = None
    published_at: int | None = None
    checked_at: int | None = None
    reason: str = ""
    kind: str = ""
    attempts: int = 0
    next_try: int | None = None
    source: str = ""
    line: int | None = None
    due: int | None = None

    def values(self) -> dict[str, Any]:
        """As JSON values; what is not known is not there."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in named.items() if value not in (None, "", 0)}


def shown(repository: Repository, head: Head, states: Iterable[ImageState] | None) -> list[Shown]:
    """Every image that is wished for or published, by name; without *states* those that are published."""
    published = Published(repository, head)
    records = {_link(record.reference): record for record in published.records()}
    removals = {_link(image): removal.due for image, removal in Schedule.read(published).removals.items()}
    by_link = {_link(state.image): state for state in states or ()}
    rows = [_of_state(state, records.get(link)) for link, state in by_link.items() if state.left_at is None]
    wished = {link for link, state in by_link.items() if state.left_at is None}
    for link in records.keys() - wished:
        left_at = by_link[link].left_at if link in by_link else None
        status = "published" if states is None else "left"
        rows.append(Shown(records[link].reference, status, left_at, records[link].published_at, due=removals.get(link)))
    return sorted(rows, key=lambda row: row.image)


def shown_time(seconds: int | None) -> str:
    return "-" if not seconds else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def shown_span(seconds: float) -> str:
    """A time span to the unit that matters: `40s`, `12m`, `5h`, `3d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def run_values(run: Run) -> dict[str, Any]:
    """A run as JSON values."""
    return {name: getattr(run, name) for name in Run.__slots__}


def _of_state(state: ImageState, record: ImageRecord | None) -> Shown:
    return Shown(
        state.image,
        str(state.status),
        state.since,
        record.published_at if record else None,
        state.granted_at,
        state.reason,
        state.kind,
        state.attempts,
        state.next_try,
        state.source,
        state.line,
    )


def _link(image: str) -> bytes:
    """The public path of an image, so that two spellings are one; of what is none, its text."""
    try:
        return layout.public_link(Reference.parse(image))
    except DuccError:
        return image.encode()
