"""The repository manifest `.cvmfspublished`: the one mutable pointer, which says what the repository is right now.

Here is its text, one letter a field; `signature` signs and verifies it. Source: format, "`.cvmfspublished`".
"""

import re
from dataclasses import dataclass

from ducc.cvmfs.letter import MalformedLetter, text_lines
from ducc.cvmfs.objectname import MalformedObjectName, parse_hash
from ducc.errors import DuccError

ROOT_PATH_HASH = "d41d8cd98f00b204e9800998ecf8427e"  # MD5 of the empty path
DEFAULT_TTL_SECONDS = 240


class BadManifest(DuccError):
    """A manifest can't be believed; whoever has an older one that could be stays with it."""

    exit_code = 60


class ManifestMalformed(BadManifest):
    """The bytes are not a manifest: empty, truncated, a web page, a field missing or twice."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is not a repository manifest: {reason}")


class WrongRootPath(BadManifest):
    """The manifest is not that of a whole repository."""

    def __init__(self, found: str) -> None:
        super().__init__(f"the manifest's root path hash is {found[:40]!r}, not that of a repository's root")


class WrongRepository(BadManifest):
    """A manifest, however well signed, of another repository."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected the manifest of {expected}, received that of {found}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One published state of a repository.

    Hashes are 20 bytes. *root_size* is the uncompressed root catalog's bytes (0: not said), *timestamp* unix seconds
    of publication. *reflog* is the hash of the reflog file as it was when this manifest was signed.
    """

    root_hash: bytes
    root_size: int
    ttl_seconds: int
    revision: int
    timestamp: int
    fqrn: str
    certificate: bytes | None = None
    history: bytes | None = None
    metainfo: bytes | None = None
    reflog: bytes | None = None
    garbage_collectable: bool = True
    alternative_names: bool = False

    def encode(self) -> bytes:
        """The text that gets signed."""
        fields = {
            "C": self.root_hash.hex(),
            "B": self.root_size,
            "R": ROOT_PATH_HASH,
            "D": self.ttl_seconds,
            "S": self.revision,
            "G": _yes_or_no(self.garbage_collectable),
            "A": _yes_or_no(self.alternative_names),
            "N": self.fqrn,
            "X": _hex(self.certificate),
            "H": _hex(self.history),
            "T": self.timestamp,
            "M": _hex(self.metainfo),
            "Y": _hex(self.reflog),
        }
        return "".join(f"{letter}{value}\n" for letter, value in fields.items() if value is not None).encode()

    @classmethod
    def parse(cls, raw: bytes) -> "Manifest":
        """Read a manifest's text, signed or not; nothing of it is to be believed before it is verified."""
        try:
            fields = _Fields(text_lines(raw))
        except MalformedLetter as error:
            raise ManifestMalformed(str(error)) from None
        if (root_path := fields.text("R")) != ROOT_PATH_HASH:
            raise WrongRootPath(root_path)
        return cls(
            root_hash=fields.hash("C"),
            root_size=fields.number("B", 0),
            ttl_seconds=fields.number("D"),
            revision=fields.number("S"),
            timestamp=fields.number("T", 0),
            fqrn=fields.text("N"),
            certificate=fields.optional_hash("X"),
            history=fields.optional_hash("H"),
            metainfo=fields.optional_hash("M"),
            reflog=fields.optional_hash("Y"),
            garbage_collectable=fields.flag("G"),
            alternative_names=fields.flag("A"),
        )


class _Fields:
    """A manifest's lines by their letter, letters we don't know included."""

    def __init__(self, lines: list[str]) -> None:
        self._values: dict[str, str] = {}
        for line in lines:
            if not re.fullmatch("[A-Z].*", line):
                raise ManifestMalformed(f"a line begins with {line[:20]!r}")
            if line[0] in self._values:
                raise ManifestMalformed(f"field {line[0]} is there twice")
            self._values[line[0]] = line[1:]

    def text(self, letter: str) -> str:
        try:
            return self._values[letter]
        except KeyError:
            raise ManifestMalformed(f"field {letter} is missing") from None

    def number(self, letter: str, default: int | None = None) -> int:
        if default is not None and letter not in self._values:
            return default
        if not re.fullmatch("[0-9]{1,18}", text := self.text(letter)):
            raise ManifestMalformed(f"field {letter} is no number: {text[:40]!r}")
        return int(text)

    def hash(self, letter: str) -> bytes:
        try:
            return parse_hash(self.text(letter))
        except MalformedObjectName as error:
            raise ManifestMalformed(f"field {letter}: {error}") from None

    def optional_hash(self, letter: str) -> bytes | None:
        return self.hash(letter) if letter in self._values else None

    def flag(self, letter: str) -> bool:
        value = self._values.get(letter, "no")
        if value not in ("yes", "no"):
            raise ManifestMalformed(f"field {letter} is neither yes nor no: {value[:40]!r}")
        return value == "yes"


def _yes_or_no(flag: bool) -> str:
    return "yes" if flag else "no"


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()
