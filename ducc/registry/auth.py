"""Who asks: challenges, and the tokens that answer them.

A registry that wants to know answers 401 with challenges. `Basic` gets the user name and password, over https or to
this machine. `Bearer` sends us to a token server, the realm, which the registry chooses and which is therefore not
trusted: it must be https, or the registry's own host, and no address of a private network unless the operator names it.
Scopes never ask for more than to pull the one image name, or to push it where that is what we do. Sources: RFC 9110
§11.6.1; the distribution project's "Token Authentication" and "OAuth2 Token Authentication".
"""

import base64
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from ducc.image.reference import Reference
from ducc.image.strictjson import MalformedDocument, read_object
from ducc.registry.credentials import AccessDenied, Credential, Source
from ducc.transport import HttpStatus, Reply, Transport
from ducc.urls import origin

MAX_HEADER_LENGTH = 8192
MAX_CHALLENGES = 10
MAX_TOKEN_ANSWER = 1024 * 1024
CLIENT_ID = "ducc"  # what token servers are told of the program
DEFAULT_LIFETIME_SECONDS = 60
LONGEST_LIFETIME_SECONDS = 3600
PULL, PUSH = "pull", "pull,push"  # what tokens are asked for
USED_FRACTION = 0.9  # of its lifetime; afterwards a token counts as expired

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))')
_SCHEME = re.compile(rf"({_WORD})(?:\s+|(?=,)|$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))")
_SEPARATORS = re.compile(r"[\s,]*")
_SCOPE = re.compile(r"repository:(?P<name>[^\s:]+(?::\d+/[^\s:]+)?):(?P<actions>[a-z_,*]+)")

Headers = dict[str, str]


class RefusedRealm(AccessDenied):
    """The registry names a token server that no credential may be sent to."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to say who asks. Names of schemes and parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str, source: str = "registry") -> list[Challenge]:
    """Read a `WWW-Authenticate` header, in which the comma separates parameters as well as challenges.

    *source* names who sent it in errors.
    """
    if len(header) > MAX_HEADER_LENGTH:
        raise AccessDenied(f"{source}: its challenge is longer than {MAX_HEADER_LENGTH} characters")
    challenges: list[Challenge] = []
    position = _after_separators(header, 0)
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None or len(challenges) == MAX_CHALLENGES:
            raise AccessDenied(f"{source}: its challenge is malformed")
        parameters, position = _parse_parameters(header, scheme.end(), source)
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges


def _parse_parameters(header: str, position: int, source: str) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    position = _after_separators(header, position)
    while match := _PARAMETER.match(header, position):
        name, quoted, plain = match.groups()
        if name.lower() in parameters:
            raise AccessDenied(f"{source}: its challenge says {name[:20]} twice")
        parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = _after_separators(header, match.end())
    if not parameters and (token68 := _TOKEN68.match(header, position)) and not _SCHEME.match(header, position):
        position = _after_separators(header, token68.end())
    return parameters, position


def _after_separators(header: str, position: int) -> int:
    match = _SEPARATORS.match(header, position)
    return match.end() if match else position


class Authorizer:
    """Answers challenges and remembers the answers, one for each image name. Safe to share among threads.

    *token_servers* tells which hosts an operator has named as an image's registry's own; they may be private.
    *actions* are what tokens are asked for.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Source,
        clock: Callable[[], float] = time.monotonic,
        token_servers: Callable[[Reference], Collection[str]] = lambda _: (),
        actions: str = PULL,
    ) -> None:
        self._transport, self._credentials, self._clock = transport, credentials, clock
        self._token_servers, self._actions = token_servers, actions
        self._guard = threading.Lock()
        self._asking: dict[str, Future[Headers]] = {}
        self._answers: dict[str, tuple[Headers, float]] = {}  # and when they expire

    def headers(self, reference: Reference) -> Headers:
        """What to send with a request: the answer given last time, while it is fresh; else nothing."""
        headers, expires = self._answers.get(_key(reference), ({}, 0.0))
        return dict(headers) if self._clock() < expires else {}

    def answer(self, reference: Reference, challenge: str, sent: Headers) -> Headers:
        """What to send instead of *sent*, which was answered by *challenge*. Raises `AccessDenied`.

        Of many threads that wait for the same answer one asks for it; all get what it gets, be it an error.
        """
        key = _key(reference)
        with self._guard:
            known = self.headers(reference)
            if known and known != sent:
                return known
            if (asking := self._asking.get(key)) is None:
                mine = self._asking[key] = Future()
        if asking is not None:
            return dict(asking.result())
        try:
            headers, lifetime_seconds = self._authorize(reference, parse_challenges(challenge, str(reference)))
            self._answers[key] = (headers, self._clock() + lifetime_seconds)
            mine.set_result(headers)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._guard:
                del self._asking[key]
        return dict(headers)

    def _authorize(self, reference: Reference, challenges: list[Challenge]) -> tuple[Headers, float]:
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        credential = self._credentials.for_image(reference)
        if bearer := by_scheme.get("bearer"):
            token, seconds = self._token(reference, bearer, credential)
            return {"Authorization": f"Bearer {token}"}, seconds
        if "basic" not in by_scheme:
            raise AccessDenied(f"{reference}: the registry asks for a kind of authentication that is not supported")
        if credential is None or credential.is_identity_token:
            raise AccessDenied(f"{reference}: the registry asks for a user name and password, and none are set for it")
        return _basic(credential), float("inf")

    def _token(self, reference: Reference, challenge: Challenge, credential: Credential | None) -> tuple[str, float]:
        realm = checked_realm(challenge.parameters.get("realm", ""), reference, self._token_servers(reference))
        service = challenge.parameters.get("service", "")
        asked = {"service": service} if service else {}
        asked["scope"] = _scope(reference, challenge.parameters.get("scope", ""), self._actions)
        try:
            reply = self._ask(realm, asked, credential)
        except HttpStatus as error:
            if error.retryable:
                raise
            whom = "the credentials set for it" if credential else "anybody without credentials"
            raise AccessDenied(f"{reference}: its token server refuses {whom} ({error.status})") from error
        return read_token(reply.body, f"{reference}: answer of its token server")

    def _ask(self, realm: SplitResult, asked: Mapping[str, str], credential: Credential | None) -> Reply:
        """Ask for a token: by a form for an identity token, which no URL may hold, else as everybody does."""
        if credential is not None and credential.is_identity_token:
            token = {"grant_type": "refresh_token", "refresh_token": credential.password, "client_id": CLIENT_ID}
            form = {**asked, **token}
            return self._transport.fetch(realm.geturl(), limit=MAX_TOKEN_ANSWER, method="POST", form=form)
        query = urlencode([*parse_qsl(realm.query), *asked.items()])
        headers = _basic(credential) if credential else {}
        return self._transport.fetch(realm._replace(query=query).geturl(), limit=MAX_TOKEN_ANSWER, headers=headers)


def read_token(body: bytes, source: str) -> tuple[str, float]:
    """The token in a token server's answer, and for how many seconds it may be used."""
    try:
        fields = read_object(body, source, MAX_TOKEN_ANSWER)
        token = fields.text("token", "") or fields.text("access_token", "")
    except MalformedDocument as error:
        raise AccessDenied(str(error)) from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise AccessDenied(f"{source}: there is no usable token in it")
    seconds = fields.get("expires_in")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0:
        seconds = DEFAULT_LIFETIME_SECONDS
    return token, min(float(seconds), LONGEST_LIFETIME_SECONDS) * USED_FRACTION


def checked_realm(realm: str, reference: Reference, named: Collection[str] = ()) -> SplitResult:
    """The URL of a token server, if a credential for *reference* may go there; the hosts *named* may be private."""
    try:
        parts = urlsplit(realm)
        place = origin(realm)
    except ValueError as error:
        raise RefusedRealm(f"{reference}: its token server has a malformed URL") from error
    host, registry_host = place[1], _host(reference.base_url)
    if (
        not (realm.isascii() and realm.isprintable())
        or " " in realm
        or not host
        or parts.scheme not in ("http", "https")
    ):
        raise RefusedRealm(f"{reference}: its token server has a malformed URL")
    if parts.username is not None or parts.password is not None:
        raise RefusedRealm(f"{reference}: its token server has a user name in its URL")
    if parts.scheme == "http" and (reference.scheme == "https" or host != registry_host):
        raise RefusedRealm(f"{reference}: its token server {host} is not reached over https")
    if host != registry_host and host not in named and not _is_public(host):
        raise RefusedRealm(f"{reference}: its token server {host} is an address of a private network")
    return parts._replace(fragment="")


def _scope(reference: Reference, asked: str, actions: str) -> str:
    """*actions* on the one image name; the registry may know it by a longer one, and by no other."""
    if not asked:
        return f"repository:{reference.repository}:{actions}"
    match = _SCOPE.fullmatch(asked)
    if match is None or not f"/{match['name']}".endswith(f"/{reference.repository}"):
        raise AccessDenied(f"{reference}: the registry asks for access to something else")
    listing = "metadata_read" in match["actions"].split(",")  # what some want for tag lists
    return f"repository:{match['name']}:{actions}{',metadata_read' if listing else ''}"


def _basic(credential: Credential) -> Headers:
    text = f"{credential.username}:{credential.password}"
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def _key(reference: Reference) -> str:
    return f"{reference.base_url}/{reference.repository}"


def _host(url: str) -> str:
    return origin(url)[1]


def _is_public(host: str) -> bool:
    """May the host be on the Internet? Numbers in any but the usual notation are not taken for one."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        return not (last == "localhost" or last[:1].isdigit() or not last)
