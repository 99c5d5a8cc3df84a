"""News of repositories, pushed to clients over HTTP as soon as there are any, by a server that has the files.

A client says which repository it means, in the body of a GET, and is sent an event with the whole manifest: the present
one at once, and each new one within a second. Source: format, "Notifications".
"""

import asyncio
import base64
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ducc.cvmfs.fqrn import BadRepositoryName, require_fqrn

Message = MutableMapping[str, Any]

PATH = b"/api/v1/notifications/subscribe"
_LOOK_SECONDS = 1.0
_LONGEST_SECONDS = 2 * 3600.0  # a line on which nothing was said for so long is ended
_LONGEST_QUESTION = 4096


class Announcer:
    """Tells what becomes of the manifests `DIR/<fqrn>/.cvmfspublished` below *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ending = False

    def end(self) -> None:
        """Let go of everybody who listens."""
        self._ending = True

    async def announce(
        self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> bool:
        """Answer a subscriber until he goes; False, and nothing was sent, if there is no such repository."""
        fqrn = await _question(receive)
        manifest = self._directory / fqrn / ".cvmfspublished"
        if not fqrn or _version(manifest) is None:
            return False
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(receive())
        told, told_at = None, time.monotonic()
        while not gone.done() and not self._ending and time.monotonic() - told_at < _LONGEST_SECONDS:
            version = _version(manifest)
            if version is not None and version != told:
                told, told_at = version, time.monotonic()
                await send({"type": "http.response.body", "body": _event(fqrn, manifest), "more_body": True})
            await asyncio.wait((gone,), timeout=_LOOK_SECONDS)
        gone.cancel()
        last = b"" if self._ending else b'data: {"status":"timeout"}\n\n'
        await send({"type": "http.response.body", "body": last})
        return True


async def _question(receive: Callable[[], Awaitable[Message]]) -> str:
    """The name of the repository that is meant; empty if that is not said."""
    body = b""
    while len(body) < _LONGEST_QUESTION:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            break
    try:
        return require_fqrn(str(json.loads(body)["repository"]))
    except (ValueError, KeyError, TypeError, BadRepositoryName):
        return ""


def _version(manifest: Path) -> tuple[int, int] | None:
    """What changes whenever the file does."""
    try:
        status = os.stat(manifest, follow_symlinks=False)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _event(fqrn: str, manifest: Path) -> bytes:
    """One line, since some clients take each piece that arrives for whole lines."""
    message = {
        "version": 1,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "type": "activity",
        "repository": fqrn,
        "manifest": base64.b64encode(manifest.read_bytes()).decode(),
    }
    return b"data: " + json.dumps(message).encode() + b"\n\n"
