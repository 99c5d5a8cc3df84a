"""HTTP from here to servers that may lie, stall or vanish.

Every request has a time-out for each phase, a bounded answer, and a bounded number of tries with jittered pauses that
honour `Retry-After`. Redirects are followed here, not by the library: another origin never sees `Authorization`, https
never falls back to http. Bytes come as the server sent them: no content coding is asked for or undone. Errors and logs
name URLs without user, password and query. Certificates and proxies are the environment's unless `Manners` know better
for a server, `.netrc` is not read.

One `Transport` may be used by many threads; an answer belongs to one thread at a time.
"""

import email.utils
import http
import itertools
import logging
import os
import random
import socket
import threading
import time
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from ducc import USER_AGENT
from ducc.errors import DuccError
from ducc.pools import Pools
from ducc.reach import CONNECT_SECONDS, IDLE_SECONDS, Manners, Reach
from ducc.urls import DEFAULT_PORTS, Origin, origin, redacted

log = logging.getLogger(__name__)
logging.getLogger("urllib3").setLevel(logging.ERROR)  # it writes whole URLs, whose queries may be secret
warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)  # the operator has said so, for that server

ATTEMPTS = 5
MAX_REDIRECTS = 10
LONGEST_PAUSE_SECONDS = 60.0  # also the most that a Retry-After is believed
READ_SIZE = 1024 * 1024

_FIRST_PAUSE_SECONDS = 0.5
_DISCARDED_BODY = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})

Answer = TypeVar("Answer")


class Unreachable(DuccError):
    """The server could not be asked, or did not answer to the end."""

    exit_code = 80
    retryable = True


class Untrusted(DuccError):
    """The server could not prove by a certificate that it is the one named."""

    exit_code = 81


class HttpStatus(DuccError):
    """The server answered, and not with what was asked for."""

    exit_code = 82

    def __init__(self, url: str, status: int, detail: str = "") -> None:
        super().__init__(f"{redacted(url)}: the server answers {status} {_phrase(status)}{detail}")
        self.status = status


class TemporaryStatus(HttpStatus):
    """The server is busy or broken for now."""

    retryable = True

    def __init__(self, url: str, status: int, retry_after_seconds: float | None) -> None:
        super().__init__(url, status, "; try again later")
        self.retry_after_seconds = retry_after_seconds


class RefusedAnswer(DuccError):
    """The server's answer breaks a rule that keeps us safe: where it redirects to, how long or in what coding it is."""

    exit_code = 83


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that has arrived as a whole. *url* is where it came from in the end."""

    status: int
    headers: Mapping[str, str]
    url: str
    body: bytes


class _Alone:
    """The manners of somebody who shares a server with nobody."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    def reach(self, place: Origin) -> Reach:
        return self._reach

    def wait(self, place: Origin) -> float:
        return 0.0

    def heard(self, place: Origin, asked_at: float, status: int, headers: Mapping[str, str]) -> None:
        pass


class Body:
    """An answer whose bytes are still on their way. Close it, or the connection is lost to others."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str, reach: Reach, clock: Callable[[], float]) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        self._response = response
        self._idle_seconds, self._slowest, self._clock = reach.idle_seconds, reach.minimum_bytes_per_second, clock
        self._waited_seconds, self._arrived_bytes = 0.0, 0  # since the pace was last looked at

    @property
    def length(self) -> int | None:
        """How many bytes the server announces, if it does."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def read1(self, size: int = READ_SIZE) -> bytes:
        """The next bytes, as soon as there are some, at most *size*; none at the end.

        Raises `Unreachable` when the connection breaks, or stays slower than the slowest pace allowed.
        """
        started = self._clock()
        try:
            data = self._response.read1(size)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{redacted(self.url)}: {_reason(error)}") from None
        self._watch_pace(self._clock() - started, len(data))
        return data

    def close(self) -> None:
        self._response.close()
        self._response.release_conn()

    def discard(self) -> None:
        """Close, and keep the connection for the next request if little is left to read."""
        if self.length is not None and self.length <= _DISCARDED_BODY:
            try:
                while self.read1():
                    pass
            except Unreachable:
                log.debug("connection lost while discarding: url=%s", redacted(self.url))
        self.close()

    def _watch_pace(self, seconds: float, size: int) -> None:
        """Only the time spent waiting counts: a slow reader is not a slow server."""
        self._waited_seconds += seconds
        self._arrived_bytes += size
        if self._waited_seconds < self._idle_seconds:
            return
        if self._arrived_bytes < self._waited_seconds * self._slowest:
            raise Unreachable(f"{redacted(self.url)}: slower than {self._slowest:g} bytes a second")
        self._waited_seconds, self._arrived_bytes = 0.0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transport:
    """Sends requests. With *manners* these say how; the times given here are for all servers without.

    The clocks and the dice are arguments, so that tests need not wait.
    """

    def __init__(
        self,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        attempts: int = ATTEMPTS,
        manners: Manners | None = None,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manners = manners or _Alone(Reach(connect_seconds, idle_seconds, idle_seconds))
        self._attempts = attempts
        self._sleep, self._chance, self._now, self._clock = sleep, chance, now, clock
        self._local = threading.local()

    def fetch(
        self,
        url: str,
        *,
        limit: int,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        accept: Container[int] = (200,),
        form: Mapping[str, str] | bytes | None = None,
        attempts: int | None = None,
    ) -> Reply:
        """Ask for an answer of at most *limit* bytes and return it whole, whichever of the statuses *accept* it has.

        A *form*, which may hold secrets, or the bytes that are sent in its place, go to *url* alone: no redirect is
        followed with them. Of *attempts* there are as many as usual, unless it says otherwise. Raises `Unreachable`,
        `Untrusted`, `HttpStatus` or `RefusedAnswer`.
        """

        def once() -> Reply:
            with self._follow(method, url, dict(headers or {}), accept, form) as body:
                return Reply(body.status, body.headers, body.url, _read_bounded(body, limit))

        return self._persistently(once, attempts)

    def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Container[int] = (200,),
        attempts: int | None = None,
    ) -> Body:
        """Ask for an answer and return it as soon as its head has arrived. Raises as `fetch` does."""
        return self._persistently(lambda: self._follow("GET", url, dict(headers or {}), accept), attempts)

    def pause(self, attempt: int, at_least_seconds: float = 0.0) -> None:
        """Wait before the next try: longer after each *attempt* (from 1), and not at the pace of all the others."""
        longest = min(LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        at_least = min(at_least_seconds, LONGEST_PAUSE_SECONDS)
        self._sleep(at_least + self._chance() * longest)

    def _persistently(self, once: Callable[[], Answer], attempts: int | None) -> Answer:
        for attempt in itertools.count(1):
            try:
                return once()
            except (Unreachable, TemporaryStatus) as error:
                if attempt >= (attempts or self._attempts):
                    raise
                log.info("trying again: attempt=%d error=%s", attempt, error)
                self.pause(attempt, getattr(error, "retry_after_seconds", None) or 0.0)
        raise AssertionError("unreachable")

    def _follow(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        accept: Container[int],
        form: Mapping[str, str] | bytes | None = None,
    ) -> Body:
        """Send one request and those that redirects ask for."""
        for _ in range(MAX_REDIRECTS + 1):
            body = self._send(method, url, headers, form)
            location = body.headers.get("Location")
            if body.status not in _REDIRECTS or location is None:
                return self._accepted(body, accept)
            body.discard()
            if form is not None:
                raise RefusedAnswer(f"{redacted(url)}: redirects what was meant for it alone")
            target = redirect_target(url, location)
            if origin(target) != origin(url):
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            url = target
        raise RefusedAnswer(f"{redacted(url)}: more than {MAX_REDIRECTS} redirects")

    def _accepted(self, body: Body, accept: Container[int]) -> Body:
        coding = body.headers.get("Content-Encoding", "identity").strip().lower()
        if body.status in accept and coding in ("", "identity"):
            return body
        body.discard()
        if body.status in accept:
            raise RefusedAnswer(f"{redacted(body.url)}: sent in a content coding that was not asked for")
        if body.status in _TEMPORARY:
            seconds = retry_after_seconds(body.headers.get("Retry-After", ""), self._now())
            raise TemporaryStatus(body.url, body.status, seconds)
        raise HttpStatus(body.url, body.status)

    def _send(self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | bytes | None) -> Body:
        """Send one request. Errors have no cause: the libraries' texts hold whole URLs."""
        try:
            place = origin(url)
        except ValueError:
            raise RefusedAnswer(f"{redacted(url)}: not a URL that can be asked for") from None
        reach, asked_at = self._manners.reach(place), self._manners.wait(place)
        try:
            pool = self._pools().to(place, url, reach)
            response = pool.urlopen(
                method,
                url,
                body=form if isinstance(form, bytes | None) else urlencode(form),
                headers=_headers(headers, form),
                timeout=urllib3.Timeout(reach.connect_seconds, reach.first_byte_seconds),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.SSLError as error:
            reasons = [str(cause).lower() for cause in _causes(error) if "certificate" in str(cause).lower()]
            if any("alert" in reason for reason in reasons):
                raise Unreachable(f"{redacted(url)}: no TLS connection: it wants another certificate of us") from None
            if reasons:
                reason = "its certificate is not valid for it, or not signed by an authority known here"
                raise Untrusted(f"{redacted(url)}: {reason}") from None
            raise Unreachable(f"{redacted(url)}: no TLS connection") from None
        except urllib3.exceptions.LocationValueError:
            raise RefusedAnswer(f"{redacted(url)}: not a URL that can be asked for") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{redacted(url)}: {_reason(error)}") from None
        self._manners.heard(place, asked_at, response.status, response.headers)
        _wait_at_most(response, reach.idle_seconds)
        return Body(response, url, reach, self._clock)

    def _pools(self) -> Pools:
        """This thread's own; a forked process does not share its parent's connections."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.pools, self._local.process = Pools(), os.getpid()
        pools: Pools = self._local.pools
        return pools


def retry_after_seconds(text: str, now: float) -> float | None:
    """What a `Retry-After` asks for, as seconds from *now*; None when it is absent, absurd or in the past."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12]) or None
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return moment - now if moment > now else None


def _headers(wanted: Mapping[str, str], form: Mapping[str, str] | bytes | None) -> dict[str, str]:
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **wanted}
    if isinstance(form, Mapping):
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    return headers


def _wait_at_most(response: urllib3.BaseHTTPResponse, seconds: float) -> None:
    """Let the next pieces of an answer take so long; until now it was what the first one might take."""
    line = getattr(response.connection, "sock", None)  # of an answer without a body there is none left
    if line is not None:
        line.settimeout(seconds)


def _read_bounded(body: Body, limit: int) -> bytes:
    parts, size = [], 0
    while data := body.read1(min(READ_SIZE, limit + 1 - size)):
        parts.append(data)
        size += len(data)
        if size > limit:
            raise RefusedAnswer(f"{redacted(body.url)}: longer than {limit} bytes")
    return b"".join(parts)


def redirect_target(url: str, location: str) -> str:
    """Where the answer to a request for *url* sends us, if we may go there. Raises `RefusedAnswer`."""
    try:
        target = urljoin(url, location.strip()).partition("#")[0]
        parts = urlsplit(target)
        well_formed = location.isascii() and location.isprintable() and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise RefusedAnswer(f"{redacted(url)}: redirects to a malformed URL")
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise RefusedAnswer(f"{redacted(url)}: redirects to something that is not http or https")
    if parts.username is not None or parts.password is not None:
        raise RefusedAnswer(f"{redacted(url)}: redirects to a URL with a user name")
    if url.startswith("https:") and parts.scheme != "https":
        raise RefusedAnswer(f"{redacted(url)}: redirects from https to http")
    return target


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and what is behind it; the libraries keep causes in three places."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
        waiting += [one for one in inner if isinstance(one, BaseException)]


def _reason(error: BaseException) -> str:
    """Why it failed, in words that hold no URL."""
    causes = list(_causes(error))
    if any(isinstance(cause, (socket.gaierror, urllib3.exceptions.NameResolutionError)) for cause in causes):
        return "the host name is not known"
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return cause.strerror.lower()
    if any(isinstance(cause, urllib3.exceptions.ConnectTimeoutError) for cause in causes):
        return "no connection in time"
    if any(isinstance(cause, (urllib3.exceptions.TimeoutError, TimeoutError)) for cause in causes):
        return "silent for too long"
    return "the connection broke"


def _phrase(status: int) -> str:
    try:
        return f"({http.HTTPStatus(status).phrase.lower()})"
    except ValueError:
        return "(no known status)"
