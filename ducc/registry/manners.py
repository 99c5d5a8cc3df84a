"""Manners: what all threads together keep to when they ask a registry.

Each registry, by host and port, has its own: a budget of requests, bytes and downloads; a time before which it does not
want to be asked again, which it said (`Retry-After`) or which grows with each refusal; and the limits that it tells of
itself. What one of them asks for slows nobody else. Token servers and blob stores count as registries of their own.
"""

import contextlib
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ducc.errors import DuccError
from ducc.reach import Reach
from ducc.registry.area import known_as
from ducc.registry.settings import Budget, RegistriesSettings
from ducc.transport import LONGEST_PAUSE_SECONDS, retry_after_seconds
from ducc.urls import Origin

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LOW_FRACTION = 0.1  # of what a registry allows: with less left, requests that count are spread over what is left of it
MAX_REGISTRIES = 10_000  # to keep count of
BURST_SECONDS = 1.0  # for which an unused budget is kept

_BUSY = frozenset({429, 503})
_LIMIT = re.compile(r"\s*(?P<count>\d{1,12})\s*(?:;\s*w=(?P<window>\d{1,9}))?\s*(?:[,;].*)?")
_ROUNDS = 10  # how often the end of a pause is looked at again, since others may prolong it


@dataclass(frozen=True, slots=True)
class Limits:
    """What a registry told of its limits: of *limit* requests in *window_seconds*, *remaining* are left."""

    limit: int
    remaining: int
    window_seconds: int | None
    source: str  # whom it counts: an address or an account
    told_at: float  # seconds since the epoch


class LimitAlmostReached(DuccError):
    """Of the requests that a registry allows few are left, and others wait for them already."""

    exit_code = 88
    retryable = True

    def __init__(self, registry: str, limits: Limits) -> None:
        super().__init__(f"{registry}: {limits.remaining} of {limits.limit} requests are left: log in, or use a mirror")


class Manners:
    """The manners towards every registry, made as they are met. The clocks and the dice are for tests."""

    def __init__(
        self,
        settings: RegistriesSettings | None = None,
        *,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or RegistriesSettings()
        self._sleep, self._chance, self._clock, self._now = sleep, chance, clock, now
        self._guard = threading.Lock()
        self._counters: dict[str, Counter] = {}

    def reach(self, place: Origin) -> Reach:
        """How a server is reached."""
        return self._settings.of_registry(_name(place)).reach

    def wait(self, place: Origin) -> float:
        """Return when the server may be asked; the time is for `heard`."""
        self.counter(_name(place)).wait()
        return self._clock()

    def heard(self, place: Origin, asked_at: float, status: int, headers: Mapping[str, str]) -> None:
        """Note what a server answered to a request that was sent at *asked_at*, as `wait` told it."""
        seconds = retry_after_seconds(headers.get("Retry-After", ""), self._now()) if status in _BUSY else None
        self.counter(_name(place)).heard(asked_at, status, seconds)
        if (limits := read_limits(headers, self._now())) is not None:
            self.counter(_name(place)).tell(limits)

    def limits(self) -> dict[str, Limits]:
        """What each registry told of its limits, by its name, as far as any did."""
        with self._guard:
            counters = list(self._counters.items())
        return {name: counter.limits for name, counter in counters if counter.limits is not None}

    def counter(self, registry: str) -> "Counter":
        """Where the requests to one registry are counted."""
        name = known_as(registry)
        with self._guard:
            if name not in self._counters:
                if len(self._counters) >= MAX_REGISTRIES:
                    self._counters.clear()  # redirects may name ever new hosts
                budget = self._settings.of_registry(name).budget
                self._counters[name] = Counter(name, budget, self._sleep, self._chance, self._clock)
            return self._counters[name]


class Counter:
    """One registry's manners. Threads share it."""

    def __init__(
        self,
        name: str,
        budget: Budget,
        sleep: Callable[[float], object],
        chance: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.limits: Limits | None = None
        self._name, self._sleep, self._chance, self._clock = name, sleep, chance, clock
        self._guard = threading.Lock()
        self._requests = _Rate(budget.requests_per_second)
        self._bytes = _Rate(budget.bytes_per_second)
        self._told_at = 0.0
        self._counted = 0.0  # when the next request that counts towards a low limit may be sent
        self._downloads = threading.BoundedSemaphore(budget.downloads) if budget.downloads else None
        self._closed_until = self._closed_at = float("-inf")
        self._refusals = 0

    def wait(self) -> None:
        """Return when the registry may be asked: neither busy nor asked too often."""
        for _ in range(_ROUNDS):
            with self._guard:
                seconds = self._closed_until - self._clock()
            if seconds <= 0:
                break
            self._sleep(seconds + self._chance() * FIRST_PAUSE_SECONDS)
        self._pass(self._requests, 1)

    def wait_to_count(self) -> None:
        """Return when a request may be sent that counts towards the registry's limit (Docker Hub: manifests by GET).

        Raises `LimitAlmostReached` when that is not soon.
        """
        limits = self.limits
        if limits is None or limits.remaining > limits.limit * LOW_FRACTION:
            return
        window = limits.window_seconds or LONGEST_PAUSE_SECONDS
        spread = window / max(1, limits.remaining)
        with self._guard:
            now = self._clock()
            if now - self._told_at > window:
                return
            wait = max(self._counted - now, 0.0)
            if wait > LONGEST_PAUSE_SECONDS:
                raise LimitAlmostReached(self._name, limits)
            self._counted = now + wait + min(spread, LONGEST_PAUSE_SECONDS)
        if wait > 0:
            log.info("limit almost reached: registry=%s remaining=%d", self._name, limits.remaining)
            self._sleep(wait)

    def tell(self, limits: Limits) -> None:
        """Note what the registry tells of its limits; it holds for as long as their window is."""
        with self._guard:
            self.limits, self._told_at = limits, self._clock()

    def arrived(self, size: int) -> None:
        """Wait for as long as *size* bytes may take."""
        self._pass(self._bytes, size)

    @contextlib.contextmanager
    def download(self) -> Iterator[None]:
        """Hold one of the downloads that may go on at the same time."""
        with self._downloads or contextlib.nullcontext():
            yield

    def heard(self, asked_at: float, status: int, seconds: float | None) -> None:
        """Note an answer; *seconds* is what its `Retry-After` asks for.

        Of many refusals of requests that were under way together, one counts: more of them say nothing new.
        """
        with self._guard:
            now = self._clock()
            if status not in _BUSY:
                if status < 500 and asked_at > self._closed_at:
                    self._refusals = 0
                return
            if asked_at > self._closed_at:
                self._refusals = min(self._refusals + 1, 16)
                self._closed_at = now
            longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self._refusals - 1))
            pause = min(seconds, LONGEST_PAUSE_SECONDS) if seconds is not None else self._chance() * longest
            self._closed_until = max(self._closed_until, now + pause)
        log.info("registry is busy: registry=%s status=%d seconds=%.1f", self._name, status, pause)

    def _pass(self, rate: "_Rate", amount: int) -> None:
        with self._guard:
            seconds = rate.take(amount, self._clock())
        if seconds > 0:
            self._sleep(seconds)


class _Rate:
    """So much a second, and no more than a burst at once."""

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._taken_until = float("-inf")

    def take(self, amount: int, now: float) -> float:
        """Take *amount*; return for how many seconds to wait for it."""
        if self._per_second is None:
            return 0.0
        wait = max(self._taken_until, now - BURST_SECONDS) - now
        self._taken_until = now + wait + amount / self._per_second
        return wait


def read_limits(headers: Mapping[str, str], now: float) -> Limits | None:
    """What `RateLimit-Limit`, `RateLimit-Remaining` and `docker-ratelimit-source` say, if they say it well."""
    limit, remaining = (_LIMIT.fullmatch(headers.get(f"RateLimit-{part}", "")) for part in ("Limit", "Remaining"))
    if limit is None or remaining is None:
        return None
    window = limit["window"] or remaining["window"]
    source = ascii(headers.get("docker-ratelimit-source", ""))[1:-1][:100]
    return Limits(int(limit["count"]), int(remaining["count"]), int(window) if window else None, source, now)


def _name(place: Origin) -> str:
    scheme, host, port = place
    host = f"[{host}]" if ":" in host else host
    return known_as(f"{host}:{port}" if port else host, scheme)
