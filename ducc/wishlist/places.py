"""Where wishlists lie: in a file, or behind a URL. (`ducc.wishlist.git` is a third kind of place.)"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ducc.transport import Reply, Transport
from ducc.urls import redacted
from ducc.wishlist.wish import MAX_BYTES, UnreadableWishlist

_MAX_VALIDATOR_LENGTH = 1000
_VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}  # what to send back, and as what


@dataclass(frozen=True, slots=True)
class Found:
    """What lies there now. *data* is None if it is what the *validators*, handed in, came with."""

    data: bytes | None
    validators: Mapping[str, str] = field(default_factory=dict)


class Place(Protocol):
    @property
    def name(self) -> str:
        """What it is called in messages, without secrets."""

    def read(self, validators: Mapping[str, str]) -> Found:
        """Look there. *validators* came with the bytes that the caller has; without them none are in hand.

        Raises a `DuccError` if there is nothing to be had.
        """


class File:
    """A local file, perhaps of a git checkout that somebody else keeps up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)

    def read(self, validators: Mapping[str, str]) -> Found:
        try:
            with self._path.open("rb") as file:
                return Found(file.read(MAX_BYTES + 1))  # one more than is accepted
        except OSError as error:
            raise UnreadableWishlist(f"{self._path}: cannot be read: {error.strerror}") from error


class WebPage:
    """A file behind an http or https URL. While it does not change, looking there costs a 304."""

    def __init__(self, url: str, transport: Transport) -> None:
        self._url, self._transport = url, transport
        self.name = redacted(url)

    def read(self, validators: Mapping[str, str]) -> Found:
        headers = {_VALIDATORS[name]: value for name, value in validators.items() if name in _VALIDATORS}
        accept = (200, 304) if headers else (200,)
        reply = self._transport.fetch(self._url, limit=MAX_BYTES, headers=headers, accept=accept)
        return Found(None, validators) if reply.status == 304 else Found(reply.body, _validators(reply))


def _validators(reply: Reply) -> dict[str, str]:
    values = {name: reply.headers.get(name, "") for name in _VALIDATORS}
    return {name: value for name, value in values.items() if value and _is_harmless(value)}


def _is_harmless(value: str) -> bool:
    return len(value) <= _MAX_VALIDATOR_LENGTH and value.isascii() and value.isprintable()
