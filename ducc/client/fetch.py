"""From an object's name to its verified content.

The hash of the stored bytes is compared before anything else is done with them. An object is fetched once, however
many ask for it at the same time; an object that arrives damaged is asked for again, by the store itself where it
knows other ways.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, Protocol, runtime_checkable

from ducc.client.cache import Cache, Content
from ducc.cvmfs.compression import BadObject, inflate, inflate_at_most
from ducc.cvmfs.entry import STORED, ZLIB
from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError
from ducc.storage.base import ReadableStore

log = logging.getLogger(__name__)

_THREADS = 16  # most of them wait for the network
_LARGEST_UNSAID = 1 << 28  # bytes of content whose size nothing tells (a certificate; a root catalog, by old tools)


class CorruptObject(DuccError):
    """The store's bytes are not those that the object's name promises."""

    exit_code = 50
    retryable = True

    def __init__(self, name: ObjectName, reason: str) -> None:
        super().__init__(f"object {name} is damaged: {reason}")


class Wanted(NamedTuple):
    """What to fetch, and how to know it: *size* is the content's, uncompressed; None where nothing tells."""

    name: ObjectName
    size: int | None
    compression: int = ZLIB


@runtime_checkable
class CheckingStore(Protocol):
    """A store that knows several ways to an object, and goes on until the bytes are right."""

    def get_checked(self, name: ObjectName, check: Callable[[bytes], None]) -> bytes:
        """Return bytes that *check* lets pass; it raises what is wrong with them."""


class Recording:
    """The objects that are wanted from now on, each once, in the order in which they are first wanted."""

    MOST = 1_000_000

    def __init__(self) -> None:
        self.wanted: dict[Wanted, None] = {}

    def add(self, wanted: Wanted) -> None:
        if len(self.wanted) < self.MOST:
            self.wanted[wanted] = None


class _Arrival(NamedTuple):
    """An object on its way: the content as soon as it is verified, and once more when it is in the cache."""

    arrived: "Future[Content]"
    kept: "Future[Content]"


class Fetcher:
    """Objects of one store, through one cache. Every method may be called by any thread.

    Counted are the questions whose answers were in the cache (`hits`), and those whose were not (`misses`).
    """

    def __init__(self, store: ReadableStore, cache: Cache) -> None:
        self._store, self.cache = store, cache
        self.hits = self.misses = 0
        self.recording: Recording | None = None
        self._pool = ThreadPoolExecutor(_THREADS, "fetch")
        self._running: dict[Wanted, _Arrival] = {}
        self._lock = Lock()

    def cached(self, wanted: Wanted) -> Content | None:
        """The content if this machine has it; never waits for the network."""
        self._note(wanted)
        return self._counted(self._in_cache(wanted))

    def at_once(self, wanted: Wanted) -> Content | None:
        """The content if this machine has it and no disk has to be waited for."""
        self._note(wanted)
        return self._counted(self.cache.open_at_once(wanted.name.digest, wanted.size))

    def fetch(self, wanted: Wanted) -> "Future[Content]":
        """Begin to fetch, or join whoever is fetching the same.

        Raises through the future: `CorruptObject`, `BadObject` (the publisher's fault), `ObjectMissing`,
        `StoreUnavailable`.
        """
        return self._fetch(wanted).arrived

    def fetch_ahead(self, wanted: Wanted) -> None:
        """Begin to fetch what this machine does not have and somebody will perhaps want."""
        if not self.cache.has(wanted.name.digest):
            self._fetch(wanted)

    def content(self, wanted: Wanted) -> Content:
        """The content, waited for until it is in the cache, if that takes it."""
        return self.cached(wanted) or self._fetch(wanted).kept.result()

    def _fetch(self, wanted: Wanted) -> "_Arrival":
        with self._lock:
            running = self._running.get(wanted)
            if running is None:
                running = self._running[wanted] = _Arrival(Future(), Future())
                self._pool.submit(self._load, wanted, running)
            return running

    def close(self) -> None:
        """Who waits for what has not begun waits no more."""
        with self._lock:
            arrivals = list(self._running.values())
        for arrival in arrivals:
            if arrival.arrived.cancel():
                arrival.kept.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _note(self, wanted: Wanted) -> None:
        if self.recording is not None:
            self.recording.add(wanted)

    def _counted(self, content: Content | None) -> Content | None:
        self.hits += content is not None
        return content

    def _load(self, wanted: Wanted, arrival: _Arrival) -> None:
        """Hand over what has arrived, and only then keep it in the cache, which takes as long again."""
        if not arrival.arrived.set_running_or_notify_cancel():
            return
        try:
            with self.cache.alone(wanted.name.digest):
                content = self._in_cache(wanted)  # perhaps somebody was faster
                if content is not None:
                    arrival.arrived.set_result(content)
                else:
                    content = self._arrive(wanted, arrival)
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._end(wanted)
            if not arrival.arrived.done():
                arrival.arrived.set_exception(error)
            arrival.kept.set_exception(error)
        else:
            self._end(wanted)
            arrival.kept.set_result(content)

    def _arrive(self, wanted: Wanted, arrival: _Arrival) -> Content:
        self.misses += 1
        data = self._download(wanted)
        content = Content.in_memory(data)
        arrival.arrived.set_result(content)
        self.cache.keep(wanted.name.digest, data, content)
        return content

    def _end(self, wanted: Wanted) -> None:
        with self._lock:
            del self._running[wanted]

    def _in_cache(self, wanted: Wanted) -> Content | None:
        return self.cache.open(wanted.name.digest, wanted.size)

    def _download(self, wanted: Wanted) -> bytes:
        name = wanted.name

        def check(stored: bytes) -> None:
            if (arrived := ObjectName.of(stored, name.suffix)) != name:
                raise CorruptObject(name, f"{len(stored)} bytes arrived, whose hash is {arrived.digest.hex()}")

        if isinstance(self._store, CheckingStore):
            return _content(wanted, self._store.get_checked(name, check))
        return _content(wanted, _asked_twice(self._store, name, check))


def _asked_twice(store: ReadableStore, name: ObjectName, check: Callable[[bytes], None]) -> bytes:
    stored = store.get(name)
    try:
        check(stored)
    except CorruptObject as error:
        log.warning("asking once more: %s", error)
        stored = store.get(name)
        check(stored)
    return stored


def _content(wanted: Wanted, stored: bytes) -> bytes:
    if wanted.compression != STORED:
        return inflate_at_most(stored, _LARGEST_UNSAID) if wanted.size is None else inflate(stored, wanted.size)
    if wanted.size is not None and len(stored) != wanted.size:
        raise BadObject(f"object {wanted.name} has {len(stored)} bytes, its catalog says {wanted.size}")
    return stored
