"""News of a repository, pushed by a server as soon as there are any, so that nobody waits for a TTL to end.

The line stays open; each event on it holds the whole signed manifest. It is believed no more than one that was asked
for, and whatever happens to the line, newer revisions are asked for as if there were none. Source: format,
"Notifications".
"""

import base64
import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

from ducc.urls import redacted

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 30.0
_SILENCE_SECONDS = 2 * 3600 + 300.0  # servers end a line on which nothing was said for two hours
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_LONGEST_EVENT = 1 << 20


class Notices:
    """What the server at *url* says of the repository *fqrn*; each manifest goes to *heard*."""

    def __init__(
        self, url: str, fqrn: str, heard: Callable[[bytes], None], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._url, self._fqrn, self._heard, self._sleep = url.rstrip("/"), fqrn, heard, sleep
        self._pause = _FIRST_PAUSE_SECONDS

    def listen(self) -> None:
        """Never returns; for a thread of its own."""
        while True:
            try:
                self._listen_once()
                reason = "the server has ended the line"
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(error) or type(error).__name__
            if self._pause == _FIRST_PAUSE_SECONDS:
                log.info("nothing is pushed for a while: server=%s reason=%s", redacted(self._url), reason)
            self._sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _listen_once(self) -> None:
        with closing(_connection(self._url)) as connection:
            question = json.dumps({"version": 1, "repository": self._fqrn})
            headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
            path = f"{urlsplit(self._url).path}/notifications/subscribe"
            connection.request("GET", path, question.encode(), headers)
            connection.sock.settimeout(_SILENCE_SECONDS)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise ValueError(f"answers {answer.status}")
            while line := answer.readline(_LONGEST_EVENT):
                name, _, data = line.partition(b":")
                if name == b"data" and (manifest := self._manifest_in(data)) is not None:
                    self._heard(manifest)
                    self._pause = _FIRST_PAUSE_SECONDS

    def _manifest_in(self, event: bytes) -> bytes | None:
        """The manifest that an event announces; None if it is about something else. Raises `ValueError`."""
        message = json.loads(event)
        if not isinstance(message, dict):
            raise ValueError("it says what is no message")
        if message.get("type") != "activity" or message.get("repository") != self._fqrn:
            return None
        manifest = message.get("manifest")
        if not isinstance(manifest, str):
            raise ValueError("it announces no manifest")
        return base64.b64decode(manifest, validate=True)


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=_CONNECT_SECONDS, context=context)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_CONNECT_SECONDS)
