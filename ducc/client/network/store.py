"""A repository behind several servers and proxies, as one store.

Each question goes along one *route*, a proxy (or none) and a server. What fails on a route is blamed on one of the two,
which is passed over from then on, and the next is asked at once; only when all have failed is there a pause, and one
more round. Whether the answer is the right one is the asker's to check, but a wrong one is a fault of the route: it is
asked for past caches first, then along another route. A missing object is definite when every server says so.

What is blamed: the proxy, if there is no connection to it or it refuses; the server, if none stands before it or the
proxy says so. Where it may be either (silence, a web page, damage), the proxy is asked for another server: if that
helps, it was the server, and else the proxy. A proxy through which no server answers is passed over as well.
"""

import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Lock
from urllib.parse import urljoin, urlsplit

from ducc.client.network.choices import Choices
from ducc.client.network.settings import DIRECT, NetworkSettings
from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError
from ducc.storage.base import REFLOG, ObjectMissing, StoreUnavailable
from ducc.storage.connections import Connections, NoAnswer, Patience
from ducc.storage.http1 import Answer
from ducc.urls import redacted

log = logging.getLogger(__name__)

Check = Callable[[bytes], None]

_LARGEST_OBJECT = 1 << 30  # stored bytes; what the stock publisher allows for a file
_LARGEST_ROOT_FILE = 1 << 20
_LARGEST_REFLOG = 1 << 28
_FOUND, _GONE, _PROXY_WANTS_LOGIN = 200, (403, 404, 410), 407
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 4
_GEO_SECONDS = 10.0
_MOST_ASKED_FOR_DISTANCES = 3
_LARGEST_GEO_ANSWER = 4096
_PAST_CACHES = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_SQUID_MET = ("ERR_CONNECT_FAIL", "ERR_DNS_FAIL", "ERR_READ_TIMEOUT", "ERR_READ_ERROR", "ERR_ZERO_SIZE_OBJECT")


class Blame(Enum):
    """Whose fault it was that a route did not lead to an answer."""

    PROXY = auto()
    HOST = auto()
    EITHER = auto()


class _Failed(Exception):
    """A route did not lead to a good answer."""

    def __init__(self, reason: str, blame: Blame, *, damaged: bool = False) -> None:
        super().__init__(reason)
        self.blame, self.damaged = blame, damaged


@dataclass(slots=True)
class Traffic:
    """What was asked and received since the start; `problem` is the last one, empty when the last answer was good."""

    requests: int = 0
    received_bytes: int = 0
    failures: int = 0
    damaged: int = 0
    seconds: float = 0.0
    problem: str = ""
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, received_bytes: int, seconds: float) -> None:
        with self._lock:
            self.requests += 1
            self.received_bytes += received_bytes
            self.seconds += seconds

    def failed(self, reason: str, *, damaged: bool) -> None:
        with self._lock:
            self.failures += 1
            self.damaged += damaged
            self.problem = reason


class NetworkStore:
    """A `ReadableStore`, for any number of threads."""

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        shuffle: Callable[[list[str]], None] = random.shuffle,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settings, self.traffic = settings, Traffic()
        hosts = settings.hosts if settings.by_distance else settings.hosts[: settings.most_hosts]
        self.hosts = Choices([[host] for host in hosts], settings.host_reset_seconds)
        self.proxies = Choices(settings.proxies, settings.proxy_reset_seconds, shuffle)
        self._connections = Connections()
        self._ordering, self._is_ordered = Lock(), not settings.by_distance
        self._sleep, self._chance = sleep, chance

    def get(self, name: ObjectName) -> bytes:
        return self.get_checked(name, _anything)

    def read_file(self, name: str) -> bytes | None:
        return self.read_file_checked(name, _anything)

    def get_checked(self, name: ObjectName, check: Check) -> bytes:
        """An object's bytes that *check* lets pass; it raises the error that says why not.

        Raises that error if no route leads to better ones, `ObjectMissing` or `StoreUnavailable`.
        """
        body = self._ask(name.path, _LARGEST_OBJECT, check)
        if body is None:
            raise ObjectMissing(str(name))
        return body

    def read_file_checked(self, name: str, check: Check) -> bytes | None:
        """A root file's bytes that *check* lets pass, or None where every server says that there is none."""
        return self._ask(name, _LARGEST_REFLOG if name == REFLOG else _LARGEST_ROOT_FILE, check)

    def present_route(self) -> tuple[str, str]:
        """Proxy and host that the next question goes to."""
        now = time.monotonic()
        return self.proxies.in_order(now)[0], self.hosts.in_order(now)[0]

    def _ask(self, path: str, limit: int, check: Check) -> bytes | None:
        if not self._is_ordered:
            self._order_by_distance()
        question = _Question(self, path, limit, check, time.monotonic() + self.settings.deadline_seconds)
        for attempt in range(self.settings.retries + 1):
            if attempt and not self._pause(attempt, question.deadline):
                break
            if question.round():
                self.traffic.problem = ""
                return question.body
        raise question.failure()

    def _order_by_distance(self) -> None:
        """Ask some servers, until one knows, where all of them are as seen from here; once, whatever comes of it."""
        with self._ordering:
            if self._is_ordered:
                return
            hosts, deadline = list(self.hosts.all), time.monotonic() + _GEO_SECONDS
            order = hosts
            for host in random.sample(hosts, min(len(hosts), _MOST_ASKED_FOR_DISTANCES)):
                proxy = self.proxies.in_order(time.monotonic())[0]
                with suppress(NoAnswer):
                    answer = self.request(proxy, geo_url(host, proxy, hosts), _LARGEST_GEO_ANSWER, {}, deadline)
                    if answer.status == _FOUND and (places := _places(answer.body, len(hosts))):
                        order = [hosts[place] for place in places]
                        break
            else:
                log.warning("no server says which one is the nearest, keeping the order: hosts=%d", len(hosts))
            self.hosts.prefer(order[: self.settings.most_hosts])
            self._is_ordered = True

    def _pause(self, attempt: int, deadline: float) -> bool:
        """Wait before another round, longer each time; False if there is no time for one."""
        settings = self.settings
        longest = min(settings.longest_pause_seconds, settings.first_pause_seconds * 2 ** (attempt - 1))
        seconds = longest * (1 + self._chance()) / 2
        if time.monotonic() + seconds >= deadline:
            return False
        self._sleep(seconds)
        return True

    def request(self, proxy: str, url: str, limit: int, headers: Mapping[str, str], deadline: float) -> Answer:
        """One request along one route. Raises `NoAnswer`."""
        direct = proxy == DIRECT
        settings = self.settings
        wait = settings.direct_timeout_seconds if direct else settings.proxy_timeout_seconds
        patience = Patience(wait, deadline, settings.slowest_bytes_per_second)
        began, received = time.monotonic(), 0
        try:
            answer = self._connections.get(url, limit, patience, None if direct else proxy, headers)
            received = len(answer.body)
        finally:
            self.traffic.add(received, time.monotonic() - began)
        return answer


def geo_url(host: str, proxy: str, hosts: Sequence[str]) -> str:
    """Where *host* tells the order of *hosts* for whoever is behind *proxy*. Source: format, "the geo API"."""
    asker = secrets.token_hex(8) if proxy == DIRECT else urlsplit(proxy).hostname
    return f"{host}/api/v1.0/geo/{asker}/{','.join(urlsplit(one).hostname or '' for one in hosts)}"


def _places(answer: bytes, number: int) -> list[int]:
    """Which of *number* servers comes first, second, …, counted from 0; empty if that is not what the answer says."""
    try:
        places = [int(word) - 1 for word in answer.split(b",")]
    except ValueError:
        return []
    return places if sorted(places) == list(range(number)) else []


class _Question:
    """One object or file being asked for."""

    def __init__(self, store: NetworkStore, path: str, limit: int, check: Check, deadline: float) -> None:
        self._store, self._path, self._limit, self._check, self.deadline = store, path, limit, check, deadline
        self.body: bytes | None = None
        self._gone: set[str] = set()
        self._problem = "no server could be asked in time"
        self._damage: DuccError | None = None

    def round(self) -> bool:
        """Ask along one route after the other; True if one of them led to an answer, which then is `body`."""
        store, now = self._store, time.monotonic()
        proxies = deque(store.proxies.in_order(now))
        hosts = deque(store.hosts.in_order(now))
        suspects: list[str] = []  # hosts from which, through the present proxy, nothing was heard
        while proxies and hosts and time.monotonic() < self.deadline:
            proxy, host = proxies[0], hosts[0]
            try:
                found = self._along(proxy, host)
            except _Failed as error:
                self._note(proxy, host, error)
                if error.blame is Blame.EITHER and not suspects and len(hosts) > 1:
                    suspects.append(host)
                    hosts.rotate(-1)
                    continue
                if error.blame is Blame.HOST:
                    _pass_over(store.hosts, "host", hosts.popleft(), str(error))
                    if hosts or proxy == DIRECT or self._gone:
                        continue
                _pass_over(store.proxies, "proxy", proxies.popleft(), str(error))
                hosts = deque(store.hosts.in_order(now))
                suspects.clear()
                continue
            for suspect in suspects:
                _pass_over(store.hosts, "host", suspect, self._problem)
            _welcome(store.proxies, "proxy", proxy)
            _welcome(store.hosts, "host", host)
            if found:
                return True
            self._gone.add(host)
            hosts.popleft()
            suspects.clear()
        return len(self._gone) == len(store.hosts.all)

    def failure(self) -> DuccError:
        """What to tell who asked, when no round led to an answer."""
        return self._damage or StoreUnavailable(f"{self._path}: {self._problem}")

    def _along(self, proxy: str, host: str) -> bool:
        """Ask along one route, a second time past caches if the answer is wrong; False if there is no such object."""
        for headers in ({}, _PAST_CACHES):
            answer = self._answer(proxy, host, headers)
            if answer is None:
                return False
            try:
                self._check(answer.body)
            except DuccError as error:
                self._damage = error
                continue
            self.body = answer.body
            return True
        raise _Failed(f"damaged: {self._damage}", Blame.HOST if proxy == DIRECT else Blame.EITHER, damaged=True)

    def _answer(self, proxy: str, host: str, headers: Mapping[str, str]) -> Answer | None:
        """A proper answer; None: the server has nothing of that name. Raises `_Failed`."""
        direct = proxy == DIRECT
        url = f"{host}/{self._path}"
        for _ in range(_MOST_REDIRECTS):
            try:
                answer = self._store.request(proxy, url, self._limit, headers, self.deadline)
            except NoAnswer as error:
                blame = Blame.HOST if direct else Blame.EITHER if error.reached else Blame.PROXY
                raise _Failed(str(error), blame) from error
            target = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not target or not self._store.settings.follow_redirects:
                break
            url = _redirected(url, target)
        return _judged(answer, direct)

    def _note(self, proxy: str, host: str, error: _Failed) -> None:
        through = "" if proxy == DIRECT else f" through {redacted(proxy)}"
        self._problem = f"{redacted(host)}{through}: {error}"
        self._store.traffic.failed(self._problem, damaged=error.damaged)


def _judged(answer: Answer, direct: bool) -> Answer | None:
    """The answer, if it is a proper one; None if it is a definite no. Raises `_Failed`."""
    status, headers = answer.status, answer.headers
    squids_error = headers.get("x-squid-error", "").partition(" ")[0]
    if status in _GONE and (direct or not squids_error):
        return None
    page = headers.get("content-type", "").partition(";")[0].strip().lower() in _PAGE_TYPES
    if status == _FOUND and not page and headers.get("content-encoding", "identity") == "identity":
        return answer
    if direct or squids_error in _SQUID_MET:
        blame = Blame.HOST
    else:
        blame = Blame.PROXY if squids_error or status == _PROXY_WANTS_LOGIN else Blame.EITHER
    if status == _FOUND or status in _REDIRECTS:
        raise _Failed("a web page, or a way to one, comes in place of the repository (is a login wanted?)", blame)
    raise _Failed(f"answers {status}", blame)


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("http", "https") or (
        url.startswith("https:") and not target.startswith("https:")
    ):
        raise _Failed("redirects to where we do not go", Blame.HOST)
    return target


def _pass_over(choices: Choices, kind: str, name: str, reason: str) -> None:
    if choices.failed(name, time.monotonic()) and len(choices.all) > 1:
        log.warning("%s fails, asking others for a while: %s=%s reason=%s", kind, kind, redacted(name), reason)


def _welcome(choices: Choices, kind: str, name: str) -> None:
    if choices.worked(name):
        log.info("%s answers again: %s=%s", kind, kind, redacted(name))


def _anything(body: bytes) -> None:
    """Nobody wants to check."""
