"""Notifications: what happens, told to a file and to a URL, one JSON object an event.

The keys and actions are the Go program's (`-n FILE`), as far as what they name happens here; all values are strings. A
`start_…` and its `end_…` bear the same `id`. Telling never holds up what is told of: a file that can't be written and a
server that does not answer cost events, with a warning.
"""

import hashlib
import hmac
import json
import logging
import os
import queue
import random
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import requests

from ducc import USER_AGENT, layout
from ducc.convert.observer import LayerProgress, Observer
from ducc.errors import BadInput
from ducc.image.digest import Digest
from ducc.urls import redacted

log = logging.getLogger(__name__)

Event = Mapping[str, str]

MAX_WAITING = 1000  # events; later ones are dropped
AT_A_TIME = 100  # events in one request
SIGNATURE = "X-Ducc-Signature"

_TRIES = 4
_TIMEOUTS = (5.0, 10.0)
_LONGEST_PAUSE_SECONDS = 30.0
_SHORTEST_SECRET = 16


class Sink(Protocol):
    """Where events go. Called from any thread; never raises, never waits for others."""

    def send(self, event: Event) -> None: ...

    def close(self, seconds: float) -> None:
        """Send what can still be sent in that time."""


class FileSink:
    """Appends a line an event; the file may be moved away and is made again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._failing = False

    def send(self, event: Event) -> None:
        line = json.dumps(event).encode() + b"\n"
        with self._lock:
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)
            except OSError as error:
                if not self._failing:
                    log.warning("notifications not written: path=%s reason=%s", self._path, error.strerror)
                self._failing = True
            else:
                self._failing = False

    def close(self, seconds: float) -> None:
        """Nothing is on its way."""


class HttpSink:
    """POSTs `{"events": [...]}`, several events at a time, from a thread of its own.

    With a *secret*, the header `X-Ducc-Signature` is `sha256=` and the HMAC-SHA-256 of the body in hex.
    """

    def __init__(
        self, url: str, secret: bytes | None = None, chance: Callable[[], float] = random.random, tries: int = _TRIES
    ) -> None:
        self._url, self._secret, self._chance, self._tries = url, secret, chance, tries
        self._waiting: queue.Queue[Event | None] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="notify", daemon=True)
        self._thread.start()

    def send(self, event: Event) -> None:
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._dropped += 1

    def close(self, seconds: float) -> None:
        self._closing.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(seconds)

    def _serve(self) -> None:
        with requests.Session() as session:
            while not self._closing.is_set() or not self._waiting.empty():
                if events := self._next_events():
                    self._post(session, json.dumps({"events": events}).encode())

    def _next_events(self) -> list[Event]:
        """Wait for an event, and take those that came with it; None among them only wakes us."""
        events = [self._waiting.get()]
        while len(events) < AT_A_TIME:
            try:
                events.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return [event for event in events if event is not None]

    def _post(self, session: requests.Session, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        if self._secret is not None:
            headers[SIGNATURE] = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        reason = ""
        for attempt in range(self._tries):
            if attempt and self._closing.wait(min(_LONGEST_PAUSE_SECONDS, 2.0**attempt) * self._chance()):
                break
            try:
                reply = session.post(
                    self._url, body, headers=headers, timeout=_TIMEOUTS, allow_redirects=False, stream=True
                )
                reply.close()
            except (requests.RequestException, OSError, ValueError) as error:
                reason = type(error).__name__
                continue
            if reply.status_code < 300:
                return
            reason = f"status {reply.status_code}"
            if reply.status_code < 500 and reply.status_code not in (408, 429):
                break
        dropped, self._dropped = self._dropped, 0
        log.warning("notifications not delivered: url=%s reason=%s dropped=%d", redacted(self._url), reason, dropped)


class Events:
    """Tells all sinks of what happens in one process."""

    def __init__(self, sinks: Sequence[Sink] = (), clock: Callable[[], float] = time.time) -> None:
        self._sinks, self._clock = sinks, clock

    def tell(self, action: str, id: str | None = None, **values: str) -> str:
        """Tell of an action; return its id, for the action that ends it."""
        id = id or str(uuid.uuid4())
        if self._sinks:
            event = {"action": action, "time": _shown(self._clock()), "pid": str(os.getpid()), "id": id, **values}
            for sink in self._sinks:
                sink.send(event)
        return id

    def close(self, seconds: float) -> None:
        """Let the sinks send what waits, in that time."""
        for sink in self._sinks:
            sink.close(seconds)


class TellingObserver:
    """Tells of layers and images that another observer is told of. One for each batch."""

    def __init__(self, events: Events, inner: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._events, self._inner, self._clock = events, inner, clock
        self._begun: dict[str, tuple[str, float]] = {}

    def begin(self, image: str, public_path: bytes) -> None:
        """An image of the batch is taken up."""
        id = self._events.tell("start_flat_conversion", image=image, public_path=public_path.decode())
        self._begun[image] = id, self._clock()

    @contextmanager
    def layer(self, digest: Digest, size: int) -> Iterator[LayerProgress]:
        about = {"layer": digest.hex, "layer_digest": str(digest), "size_bytes": str(size)}
        started, status = self._clock(), "error"
        id = self._events.tell("start_layer_conversion", **about)
        try:
            with self._inner.layer(digest, size) as progress:
                yield progress
            status = "ok"
        finally:
            elapsed = f"{self._clock() - started:.3f}"
            private_path = layout.layer_tree(digest).decode()
            about = {**about, "private_path": private_path, "status": status, "time_elapsed_s": elapsed}
            self._events.tell("end_layer_conversion", id, **about)

    def image(self, name: str, status: str, reason: str) -> None:
        self._inner.image(name, status, reason)
        id, started = self._begun.get(name, ("", self._clock()))
        outcome = {"status": "error", "error": reason} if reason else {"status": "ok"}
        elapsed = f"{self._clock() - started:.3f}"
        if status == "published":
            self._events.tell("publish_flat_image", id, image=name, **outcome)
        self._events.tell("end_flat_conversion", id, image=name, time_elapsed_s=elapsed, **outcome)


def read_secret(path: Path) -> bytes:
    """The secret that signs notifications, from a file that nobody else may read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(4096).strip()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInput(f"{path}: others may read or change this secret: `chmod 600` it")
    if len(secret) < _SHORTEST_SECRET:
        raise BadInput(f"{path}: a secret has at least {_SHORTEST_SECRET} bytes")
    return secret


def _shown(seconds: float) -> str:
    """Day month year - time with milliseconds, as the Go program writes it; UTC."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%d %b %Y - %H:%M:%S}.{moment.microsecond // 1000:03}"
