"""What a repository fixes at its beginning, because it decides how objects are named and trees are split.

Recorded in the repository itself: member `custom.ducc` of the metainfo object that the manifest names.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ducc.catalog.split import SplitPolicy
from ducc.errors import BadInput, DuccError

PROFILES: Mapping[str, str] = {
    "default": "libdeflate-1",
    "dense": "libdeflate-5",
    "compatible": "zlib-6",  # the bytes that stock publishers write
    "fast": "isal-1",  # bytes, and so names, that depend on the processor
}
FASTCDC = "fastcdc-4-8-16"  # least, mean and most MiB of a chunk
_SPLIT = SplitPolicy()


class BadSettings(DuccError):
    """A repository's metainfo does not say, or not in words known here, how it was set up."""

    exit_code = 65

    def __init__(self, reason: str) -> None:
        super().__init__(f"the repository's recorded settings can't be used: {reason}")


class UnknownProfile(BadInput):
    """A compression profile that does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such profile: {name!r}; there are {', '.join(PROFILES)}")


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """Another value of any of these gives other hashes for equal content.

    *compressor* names library and level, *chunking* the way in which big files are cut; *split_heavy*, *split_light*
    and *split_limit* are the weights of a `SplitPolicy`.
    """

    compressor: str = PROFILES["default"]
    chunking: str = FASTCDC
    split_heavy: int = _SPLIT.heavy
    split_light: int = _SPLIT.light
    split_limit: int = _SPLIT.limit

    def __post_init__(self) -> None:
        if self.compressor not in PROFILES.values() or self.chunking != FASTCDC:
            raise BadSettings(f"compressor {self.compressor!r}, chunking {self.chunking!r} are not known here")

    @classmethod
    def of_profile(cls, profile: str) -> "RepositorySettings":
        if profile not in PROFILES:
            raise UnknownProfile(profile)
        return cls(compressor=PROFILES[profile])

    @property
    def split_policy(self) -> SplitPolicy:
        return SplitPolicy(self.split_heavy, self.split_light, self.split_limit)

    def to_metainfo(self) -> bytes:
        """The metainfo object, uncompressed."""
        return json.dumps({"custom": {"ducc": asdict(self)}}, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_metainfo(cls, metainfo: bytes) -> "RepositorySettings":
        """Read them back. A setting without a value has its default, one of a later version's is an error."""
        recorded = _recorded(metainfo)
        known = {field.name: type(field.default) for field in fields(cls)}
        for name, value in recorded.items():
            if type(value) is not known.get(name):
                raise BadSettings(f"{name} = {value!r} is not known here; it was set up by a later version")
        return cls(**recorded)


def _recorded(metainfo: bytes) -> dict[str, Any]:
    try:
        recorded = json.loads(metainfo)["custom"]["ducc"]
    except (ValueError, KeyError, TypeError):
        raise BadSettings("there are none; the repository was not set up by `ducc init`") from None
    if not isinstance(recorded, dict):
        raise BadSettings("they are not an object")
    return recorded
