"""Digests: the names that bytes give themselves.

Only sha256: it is what every registry serves, and what paths such as `.layers/<aa>/<hex>` are made of. Another
algorithm is refused by name and never cut to fit. Source: OCI image-spec, descriptor.md, "Digests". Pure: no I/O.
"""

import hashlib
import re
from dataclasses import dataclass

from ducc.errors import DuccError

_SHAPE = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<encoded>[a-zA-Z0-9=_-]+)")
_HEX = re.compile("[0-9a-f]{64}")


class MalformedDigest(DuccError):
    """A text stands where a digest should, and is none."""

    exit_code = 40


class UnsupportedDigest(MalformedDigest):
    """A digest of an algorithm that this program does not verify."""


class DigestMismatch(DuccError):
    """The bytes that arrived are not the bytes that were named."""

    exit_code = 20
    retryable = True  # most often a truncated download

    def __init__(self, source: str, expected: "Digest", actual: "Digest") -> None:
        super().__init__(f"{source}: expected {expected}, received {actual}")
        self.source, self.expected, self.actual = source, expected, actual


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """Name of a blob: sha256, 64 lower-case hex digits. A `Digest` in hand is well formed."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise MalformedDigest(f"{self.hex[:100]!r} is not a sha256: it has 64 lower-case hexadecimal digits")

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read `sha256:<hex>`."""
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise MalformedDigest(f"{text[:100]!r} is not a digest: write sha256:<64 hexadecimal digits>")
        if match["algorithm"] != "sha256":
            raise UnsupportedDigest(f"{text[:100]!r}: digests by {match['algorithm']} are not supported, sha256 is")
        return cls(match["encoded"])

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        """Name *data*."""
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
