"""Sources of wishlists, looked at again and again. A bad file never replaces the last good one.

    lists/site.yaml                                        a file, perhaps in a git checkout
    https://lists.example.org/site.yaml                    a file behind a URL
    git+https://git.example.org/lists.git//site.yaml@main  a file on a branch of a git repository
    osg:singularity.example.org:SOURCE                     any of these, as a list of the OSG, for that repository

The last good bytes are kept in a cache directory, so that they outlive the process too.
"""

import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ducc.cvmfs.fqrn import require_fqrn
from ducc.errors import BadInput, DuccError
from ducc.storage.durable import read_regular, replace_durably, store_errors
from ducc.transport import Transport
from ducc.wishlist import git
from ducc.wishlist.osg import parse_osg_list
from ducc.wishlist.parse import parse_wishlist
from ducc.wishlist.places import File, Place, WebPage
from ducc.wishlist.wish import Wishlist

OSG_PREFIX = "osg:"

_URL = re.compile(r"https?://(?P<authority>[!-.0-~]+)(?:/[!-~]*)?")  # printable; the authority has no slash
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

Parse = Callable[[bytes, str], Wishlist]

log = logging.getLogger(__name__)


class MalformedSource(BadInput):
    """A text that should say where a wishlist lies does not."""


class Change(Enum):
    """What a look at a source has found."""

    NEW = "new"  # a good wishlist that this process has not had yet
    UNCHANGED = "unchanged"
    BAD = "bad"  # unreadable or malformed


@dataclass(frozen=True, slots=True)
class Loaded:
    """What to work with. *wishlist* is the newest good one, None if there has never been one; *error* if BAD."""

    wishlist: Wishlist | None
    change: Change
    error: DuccError | None = None


class Source:
    """One wishlist, wherever it lies. Not for several threads at once."""

    def __init__(self, place: Place, parse: Parse, kept: "Kept | None" = None) -> None:
        self._place, self._parse, self._kept = place, parse, kept
        self._data: bytes | None = None  # what was seen last, good or bad, and what it came with
        self._validators: Mapping[str, str] = {}
        self._good: Wishlist | None = None
        self._good_data: bytes | None = None
        self._told: Wishlist | None = None
        self._recalled = False

    @classmethod
    def parse(cls, text: str, cache: Path | None = None, transport: Transport | None = None) -> "Source":
        """Read what an operator writes. Without *cache* the last good wishlist lives only in memory.

        Raises a `BadInput` whose text holds no password.
        """
        kept = None if cache is None else Kept(cache, _absolute(text))
        if not text.startswith(OSG_PREFIX):
            return cls(_place(text, cache, transport), parse_wishlist, kept)
        fqrn, colon, inner = text.removeprefix(OSG_PREFIX).partition(":")
        if not colon:
            raise MalformedSource("osg:…: write osg:FQRN:SOURCE, for example osg:repo.example.org:docker_images.txt")
        parse_list = functools.partial(parse_osg_list, fqrn=require_fqrn(fqrn))
        return cls(_place(inner, cache, transport), parse_list, kept)

    @property
    def name(self) -> str:
        """What it is called in messages, without secrets."""
        return self._place.name

    def load(self) -> Loaded:
        """Look whether there is something new."""
        self._recall()
        try:
            data = self._read()
            if data != self._good_data or self._good is None:
                self._good, self._good_data = self._parse(data, self.name), data
                self._keep()
        except DuccError as error:
            self._told = self._good
            return Loaded(self._good, Change.BAD, error)
        change = Change.UNCHANGED if self._good is self._told else Change.NEW
        self._told = self._good
        return Loaded(self._good, change)

    def _read(self) -> bytes:
        """The bytes that lie there now, be they those that were seen before."""
        found = self._place.read(self._validators if self._data is not None else {})
        if found.data is not None:
            self._data, self._validators = found.data, found.validators
        return self._data or b""

    def _recall(self) -> None:
        """Before the first look: take up what an earlier process has kept, if it is still good."""
        if self._recalled or self._kept is None:
            return
        self._recalled = True
        try:
            data, validators = self._kept.read()
            self._good = self._parse(data, self.name)
        except (DuccError, FileNotFoundError):
            return
        self._data, self._good_data, self._validators = data, data, validators

    def _keep(self) -> None:
        if self._kept is None:
            return
        try:
            self._kept.write(self._good_data or b"", self._validators)
        except DuccError as error:
            log.warning("a good wishlist can't be kept for the next start: source=%s error=%s", self.name, error)


class Kept:
    """The last good bytes of one source, in a file of their own: a line of JSON, then the bytes."""

    def __init__(self, cache: Path, source: str) -> None:
        self._cache = cache
        self._name = f"wishlist-{hashlib.sha256(source.encode()).hexdigest()[:32]}"

    def read(self) -> tuple[bytes, Mapping[str, str]]:
        """The bytes, and the validators that came with them. Raises FileNotFoundError or a `DuccError`."""
        head, _, data = read_regular(str(self._cache / self._name)).partition(b"\n")
        try:
            validators = json.loads(head)["validators"]
            return data, {str(name): str(value) for name, value in validators.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{self._cache / self._name}: not what was written there") from error

    def write(self, data: bytes, validators: Mapping[str, str]) -> None:
        head = json.dumps({"validators": dict(validators)}).encode()
        with store_errors(str(self._cache)):
            self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = str(self._cache / f"{self._name}.{os.getpid()}")
        replace_durably(str(self._cache), self._name, scratch, head + b"\n" + data)


def _place(text: str, cache: Path | None, transport: Transport | None) -> Place:
    if text.startswith(git.PREFIX):
        return git.GitFile.parse(text, cache)
    if text.startswith(("http://", "https://")):
        match = _URL.fullmatch(text)
        if match is None or "@" in match["authority"]:
            raise MalformedSource("http…: not a URL that can be asked for: write https://host/path, without password")
        return WebPage(text, transport or Transport())
    if _SCHEME.match(text) or not text or "\0" in text:
        raise MalformedSource(
            "neither a file nor a URL of a kind known here: write a path, http(s)://…, git+URL//path@branch or osg:…"
        )
    return File(Path(text))


def _absolute(text: str) -> str:
    """The same for the same source, wherever a program is started."""
    return text if ":" in text else os.path.abspath(text)
