"""How servers are to be asked: the times, certificates and pace of one, and what all threads keep to together."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ducc.urls import Origin

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 1024  # a server slower than this for the idle time counts as silent


@dataclass(frozen=True, slots=True)
class Reach:
    """How one server is reached: for how long it may be silent in each phase, and how it is told from others.

    Without *ca_file* the authorities of the environment vouch for it. *client_cert* may hold the key as well.
    """

    connect_seconds: float = CONNECT_SECONDS
    first_byte_seconds: float = IDLE_SECONDS  # from the request to the head of the answer
    idle_seconds: float = IDLE_SECONDS  # between two pieces of the answer, and the time its pace is measured over
    minimum_bytes_per_second: float = SLOWEST_BYTES_PER_SECOND  # slower for the idle time counts as silent
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    verify: bool = True

    def check(self) -> None:
        """Raise `OSError` when one of the files can't be used for what it is named for."""
        if self.ca_file is not None or self.client_cert is not None:
            self.tls()

    def tls(self) -> ssl.SSLContext:
        """How TLS is spoken with the server. Raises `OSError` as `check` does."""
        authorities = self.ca_file or _authorities_of_the_environment()
        if authorities.is_dir():
            context = ssl.create_default_context(capath=authorities)
        else:
            context = ssl.create_default_context(cafile=authorities)
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.client_cert is not None:
            context.load_cert_chain(self.client_cert, self.client_key, password="")  # an encrypted key is of no use
        return context


def _authorities_of_the_environment() -> Path:
    """A file or a directory: the one that is named as for curl and for requests, or what Mozilla trusts."""
    import certifi  # only https needs it

    return Path(os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where())


class Manners(Protocol):
    """How servers are to be asked by all threads together."""

    def reach(self, place: Origin) -> Reach:
        """How a server is reached."""

    def wait(self, place: Origin) -> float:
        """Return when the server may be asked; the time is for `heard`."""

    def heard(self, place: Origin, asked_at: float, status: int, headers: Mapping[str, str]) -> None:
        """Note what a server answered to a request that was sent at *asked_at*, as `wait` told it."""
