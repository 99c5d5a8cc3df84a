"""What a volume shows is said by its name: `FQRN` follows the repository, `FQRN@SNAPSHOT` stays where it is. Pure."""

import re
from dataclasses import dataclass
from enum import Enum

from ducc.cvmfs.fqrn import BadRepositoryName, require_fqrn
from ducc.errors import BadInput

_SNAPSHOT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,199}")
_HASH = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[0-9]{1,18}")


class BadVolumeName(BadInput):
    """A name that says no repository, or no snapshot of one."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"volume {text[:100]!a}: {reason}; wanted: FQRN, or FQRN@ with a tag, revision or root hash")


class SnapshotKind(Enum):
    """What the part after `@` is."""

    NEWEST = "newest"
    TAG = "tag"
    REVISION = "revision"
    ROOT_HASH = "root hash"


@dataclass(frozen=True, slots=True)
class VolumeName:
    """*snapshot* is empty where the repository is followed."""

    fqrn: str
    snapshot: str = ""

    @classmethod
    def parse(cls, text: str) -> "VolumeName":
        """Raises `BadVolumeName`; nothing that can mean a path comes through."""
        fqrn, at, snapshot = text.partition("@")
        try:
            require_fqrn(fqrn)
        except BadRepositoryName:
            raise BadVolumeName(text, f"{fqrn[:80]!a} is no repository's name") from None
        if at and not _SNAPSHOT.fullmatch(snapshot):
            raise BadVolumeName(text, f"{snapshot[:80]!a} is no snapshot's name")
        return cls(fqrn, snapshot)

    @property
    def kind(self) -> SnapshotKind:
        """Digits alone are a revision's number, 40 digits of a hash a root hash; everything else is a tag."""
        if not self.snapshot:
            return SnapshotKind.NEWEST
        if _HASH.fullmatch(self.snapshot):
            return SnapshotKind.ROOT_HASH
        return SnapshotKind.REVISION if _REVISION.fullmatch(self.snapshot) else SnapshotKind.TAG

    def __str__(self) -> str:
        return f"{self.fqrn}@{self.snapshot}" if self.snapshot else self.fqrn
