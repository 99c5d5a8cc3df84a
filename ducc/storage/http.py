"""A store that can only be read, behind an HTTP server: `http://host:port/cvmfs/<fqrn>/`.

A missing object is a definite answer; anything else that goes wrong is the server's or the network's, and passes.
"""

from collections.abc import Container

from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError
from ducc.storage.base import REFLOG, ObjectMissing, StoreUnavailable
from ducc.transport import Reply, Transport

_LARGEST_OBJECT = 1 << 30  # stored bytes; what the stock publisher allows for a file
_LARGEST_ROOT_FILE = 1 << 20
_LARGEST_REFLOG = 1 << 28
_GONE = (404, 410)

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 10.0
ATTEMPTS = 2


def reader_transport() -> Transport:
    """Somebody waits for every answer, so it comes soon or not at all."""
    return Transport(connect_seconds=CONNECT_SECONDS, idle_seconds=IDLE_SECONDS, attempts=ATTEMPTS)


class HttpStore:
    """A `ReadableStore` at *url*, for any number of threads; each has a kept connection of its own."""

    def __init__(self, url: str, transport: Transport | None = None) -> None:
        self._url = url.rstrip("/")
        self._transport = transport or reader_transport()

    def get(self, name: ObjectName) -> bytes:
        reply = self._fetch(name.path, _LARGEST_OBJECT, (200, *_GONE))
        if reply.status in _GONE:
            raise ObjectMissing(str(name))
        return reply.body

    def read_file(self, name: str) -> bytes | None:
        reply = self._fetch(name, _LARGEST_REFLOG if name == REFLOG else _LARGEST_ROOT_FILE, (200, *_GONE))
        return None if reply.status in _GONE else reply.body

    def _fetch(self, path: str, limit: int, accept: Container[int]) -> Reply:
        try:
            return self._transport.fetch(f"{self._url}/{path}", limit=limit, accept=accept)
        except DuccError as error:
            raise StoreUnavailable(str(error)) from error
