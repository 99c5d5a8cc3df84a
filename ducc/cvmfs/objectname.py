"""Names of objects: the SHA-1 of the stored (compressed) bytes, and one letter for what they are.

An object's name never changes content, so it may be cached for ever and written by anyone, any number of times.
Only SHA-1 is written and read here: it is the format's default, and what the stock tools use unless told otherwise.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from ducc.errors import DuccError

DIGEST_BYTES = 20


class MalformedObjectName(DuccError):
    """A text that should be the hash of an object is not 40 hex digits."""

    exit_code = 66

    def __init__(self, text: str) -> None:
        super().__init__(f"not the hash of an object (40 lower-case hex digits, SHA-1): {text[:80]!r}")


class Suffix(StrEnum):
    """What an object is; the letter ends its name in the store, never its hash in a catalog or manifest."""

    FILE = ""
    CHUNK = "P"
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"


@dataclass(frozen=True, slots=True, order=True)
class ObjectName:
    """The name of one object. *digest* is 20 raw bytes."""

    digest: bytes
    suffix: Suffix = Suffix.FILE

    @classmethod
    def of(cls, stored: bytes | bytearray | memoryview, suffix: Suffix = Suffix.FILE) -> "ObjectName":
        """Name the bytes as they lie in the store (compressed, if they are to be compressed)."""
        return cls(hashlib.sha1(stored).digest(), suffix)

    @property
    def path(self) -> str:
        """Where the object lies, relative to the repository's root: `data/ab/cdef…C`."""
        text = self.digest.hex()
        return f"data/{text[:2]}/{text[2:]}{self.suffix.value}"

    def __str__(self) -> str:
        return self.digest.hex() + self.suffix.value


def parse_hash(text: str) -> bytes:
    """Return the 20 bytes that *text*, as written in manifests and catalogs, stands for."""
    if not re.fullmatch("[0-9a-f]{40}", text):
        raise MalformedObjectName(text)
    return bytes.fromhex(text)
