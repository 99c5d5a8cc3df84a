"""Which images are to be removed, and when: published in the repository itself, so that everybody can know.

    {"removals": {"<image>": {"since": <unix seconds>, "due": <unix seconds>}}}

is the file; where it lies says `ducc/layout.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ducc import layout
from ducc.convert.published import Published
from ducc.convert.record import UnreadableRecord
from ducc.publish.changes import Change, PutFile, Remove, to_json_bytes


@dataclass(frozen=True, slots=True)
class Removal:
    """An image is scheduled *since* then, and may be removed when it is *due*; both in unix seconds."""

    since: int
    due: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """All removals, by image."""

    removals: Mapping[str, Removal]

    @classmethod
    def read(cls, published: Published) -> "Schedule":
        """What a revision says. Raises `UnreadableRecord`."""
        data = published.file(layout.REMOVALS)
        try:
            removals = json.loads(data)["removals"] if data is not None else {}
            return cls({str(image): Removal(int(one["since"]), int(one["due"])) for image, one in removals.items()})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UnreadableRecord(layout.REMOVALS) from error

    def changes(self, after: "Schedule") -> list[Change]:
        """What makes this schedule that one."""
        if after.removals == self.removals:
            return []
        if not after.removals:
            return [Remove(layout.REMOVALS)]
        removals = {image: asdict(removal) for image, removal in after.removals.items()}
        return [PutFile(layout.REMOVALS, to_json_bytes({"removals": removals}))]
