"""From an object's name to its verified content.

The hash of the stored bytes is compared before anything else is done with them. An object is fetched once, however
many ask for it at the same time; an object that arrives damaged is asked for again, by the store itself where it
knows other ways.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread, local
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

    wanted: Wanted
    arrived: "Future[Content]"
    kept: "Future[Content]"
    turn: ExitStack  # to be closed when others on this node may fetch it


class _Here(local):
    """What each thread has of its own: what it has to do to keep what it has fetched."""

    def __init__(self) -> None:
        self.unkept: list[Callable[[], None]] = []


class Fetcher:
    """Objects of one store, through one cache. Every method may be called by any thread.

    Counted are the questions whose answers were in the cache (`hits`), what was fetched for others (`misses`), and what
    was fetched before anybody asked (`prefetched`).
    """

    def __init__(self, store: ReadableStore, cache: Cache) -> None:
        self.cache = cache
        self._get = store.get_checked if isinstance(store, CheckingStore) else partial(_asked_twice, store)
        self.hits = self.misses = self.prefetched = 0
        self.recording: Recording | None = None
        self._running: dict[Wanted, _Arrival] = {}
        self._work = SimpleQueue[_Arrival | None]()  # what nobody has begun to fetch; None: end
        self._threads = self._idle = 0  # how many there are, and how many more wait for work than there is
        self._here = _Here()
        self._lock = Lock()

    def cached(self, wanted: Wanted) -> Content | None:
        """The content if this machine has it; never waits for the network."""
        self._note(wanted)
        return self._counted(self._in_cache(wanted))

    def at_once(self, wanted: Wanted) -> Content | None:
        """The content if this machine has it. Raises `NotAtOnce` if a disk has to be waited for."""
        self._note(wanted)
        return self._counted(self.cache.open_at_once(wanted.name.digest, wanted.size))

    def coming(self, wanted: Wanted) -> "Future[Content] | None":
        """What has been begun to fetch, if it has."""
        running = self._running.get(wanted)
        return running.arrived if running else None

    def fetch(self, wanted: Wanted) -> "Future[Content]":
        """Let a thread begin to fetch, or join whoever is fetching the same.

        Raises through the future: `CorruptObject`, `BadObject` (the publisher's fault), `ObjectMissing`,
        `StoreUnavailable`.
        """
        arrival, is_new = self._arrival(wanted)
        if is_new:
            self._begin(arrival)
        return arrival.arrived

    def fetch_here(self, wanted: Wanted) -> Content:
        """Fetch, or wait for whoever is fetching the same; whoever calls must call `rest` soon. Raises the same."""
        arrival, is_new = self._arrival(wanted)
        if is_new:
            self._load_for_asker(arrival, self._keep_later)
        return arrival.arrived.result()

    def rest(self) -> Callable[[], None] | None:
        """What has the cache keep what this thread has fetched by `fetch_here`; None if it has fetched nothing."""
        unkept, self._here.unkept = self._here.unkept, []
        return partial(_call_all, unkept) if unkept else None

    def fetch_ahead(self, wanted: Wanted) -> None:
        """Begin to fetch what this machine does not have and somebody will perhaps want."""
        if not self.cache.has(wanted.name.digest):
            self.fetch(wanted)

    def prefetch(self, wanted: Wanted) -> BaseException | None:
        """Fetch and keep what this machine does not have and nobody else is fetching; return why it can't be had."""
        if self.cache.has(wanted.name.digest):
            return None
        arrival, is_new = self._arrival(wanted)
        if not is_new:
            return None
        if self._load(arrival, self._keep):
            self.prefetched += 1
        return None if arrival.arrived.cancelled() else arrival.arrived.exception()

    def content(self, wanted: Wanted) -> Content:
        """The content, waited for until it is in the cache, if that takes it."""
        content = self.cached(wanted)
        if content is not None:
            return content
        arrival, is_new = self._arrival(wanted)
        if is_new:
            self._load_for_asker(arrival, self._keep)
        return arrival.kept.result()

    def close(self) -> None:
        """Who waits for what has not begun waits no more."""
        with self._lock:
            arrivals = list(self._running.values())
            for _ in range(self._threads):
                self._work.put(None)
        for arrival in arrivals:
            if arrival.arrived.cancel():
                arrival.kept.cancel()

    def _arrival(self, wanted: Wanted) -> tuple[_Arrival, bool]:
        """What is on its way, and whether it was not before: then it has to be loaded."""
        with self._lock:
            running = self._running.get(wanted)
            if running is not None:
                return running, False
            arrival = self._running[wanted] = _Arrival(wanted, Future(), Future(), ExitStack())
            return arrival, True

    def _begin(self, arrival: _Arrival) -> None:
        """Let a thread load it, a new one if there may be one more."""
        with self._lock:
            if self._idle <= 0 and self._threads < _THREADS:
                self._threads += 1
                self._idle += 1
                Thread(target=self._load_for_ever, name=f"fetch-{self._threads}", daemon=True).start()
            self._idle -= 1
            self._work.put(arrival)

    def _load_for_ever(self) -> None:
        while (arrival := self._work.get()) is not None:
            self._load_for_asker(arrival, self._keep)
            with self._lock:
                self._idle += 1

    def _note(self, wanted: Wanted) -> None:
        if self.recording is not None:
            self.recording.add(wanted)

    def _counted(self, content: Content | None) -> Content | None:
        self.hits += content is not None
        return content

    def _load_for_asker(self, arrival: _Arrival, keep: Callable[[_Arrival, bytes], None]) -> None:
        if self._load(arrival, keep):
            self.misses += 1

    def _load(self, arrival: _Arrival, keep: Callable[[_Arrival, bytes], None]) -> bool:
        """Hand over what has arrived, and only then have the cache *keep* it, which takes as long again.

        Return whether it had to be fetched, and was.
        """
        if not arrival.arrived.set_running_or_notify_cancel():
            self._end(arrival)
            return False
        try:
            arrival.turn.enter_context(self.cache.alone(arrival.wanted.name.digest))
            content = self._in_cache(arrival.wanted)  # perhaps somebody was faster
            data = b"" if content else self._download(arrival.wanted)
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._end(arrival)
            arrival.arrived.set_exception(error)
            arrival.kept.set_exception(error)
            return False
        if content is not None:
            self._end(arrival)
            arrival.arrived.set_result(content)
            arrival.kept.set_result(content)
            return False
        arrival.arrived.set_result(Content.in_memory(data))
        keep(arrival, data)
        return True

    def _keep(self, arrival: _Arrival, data: bytes) -> None:
        content = arrival.arrived.result()
        try:
            self.cache.keep(arrival.wanted.name.digest, data, content)
        except Exception:  # who waits for it has it in memory, and this thread is needed for others
            log.exception("not kept by a fault of this program: object=%s", arrival.wanted.name)
        self._end(arrival)
        arrival.kept.set_result(content)

    def _keep_later(self, arrival: _Arrival, data: bytes) -> None:
        self._here.unkept.append(partial(self._keep, arrival, data))

    def _end(self, arrival: _Arrival) -> None:
        arrival.turn.close()
        with self._lock:
            del self._running[arrival.wanted]

    def _in_cache(self, wanted: Wanted) -> Content | None:
        return self.cache.open(wanted.name.digest, wanted.size)

    def _download(self, wanted: Wanted) -> bytes:
        name = wanted.name

        def check(stored: bytes) -> None:
            if (arrived := ObjectName.of(stored, name.suffix)) != name:
                raise CorruptObject(name, f"{len(stored)} bytes arrived, whose hash is {arrived.digest.hex()}")

        return _content(wanted, self._get(name, check))


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


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
