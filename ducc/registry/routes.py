"""The ways to an image: the mirrors of its registry, in the operator's order, then the registry itself.

A mirror is a registry to which the image has another name, with credentials of its own. It gets one try; when it does
not answer, it is left alone for a while. What it says of a tag is believed as its operator wants it to be; every byte
is verified by digest, and a mirror that sent wrong bytes is not asked for that digest again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ducc.errors import DuccError
from ducc.image.digest import Digest, DigestMismatch
from ducc.image.reference import Reference
from ducc.registry.area import known_as
from ducc.registry.auth import PULL, PUSH, Authorizer, Headers
from ducc.registry.credentials import Source
from ducc.registry.settings import Mirror, RegistriesSettings
from ducc.transport import Body, Reply, Transport, Untrusted
from ducc.urls import is_this_machine, origin

MIRROR_ATTEMPTS = 1
MIRROR_REST_SECONDS = 60.0  # for which a mirror that failed is not asked
MAX_DISTRUSTED = 10_000

T = TypeVar("T")
Answer = TypeVar("Answer", Reply, Body)

log = logging.getLogger(__name__)


class PlainHttp(Untrusted):
    """A registry is to be asked without encryption, and the operator has not said that it may be."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way: what the image is called there, and who answers when that place asks who we are."""

    reference: Reference
    authorizer: Authorizer
    mirror: Mirror | None = None

    @property
    def attempts(self) -> int | None:
        """How often a request is tried; None is as often as usual."""
        return MIRROR_ATTEMPTS if self.mirror else None

    @property
    def place(self) -> str:
        """The name under which requests are counted."""
        return known_as(self.reference.registry, self.reference.scheme)

    def authorized(self, send: Callable[[Headers], Answer]) -> Answer:
        """Send, and once more when the registry itself, not a place it redirects to, asks who we are."""
        sent = self.authorizer.headers(self.reference)
        answer = send(sent)
        if answer.status != 401 or origin(answer.url) != origin(self.reference.base_url):
            return answer
        if isinstance(answer, Body):
            answer.discard()
        return send(self.authorizer.answer(self.reference, answer.headers.get("WWW-Authenticate", ""), sent))


class Routes:
    """Finds ways to images. Threads share it; `using` shares what is known of the mirrors."""

    def __init__(
        self,
        settings: RegistriesSettings,
        transport: Transport,
        credentials: Source,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._transport, self._clock = settings, transport, clock
        self._credentials = credentials
        self._guard = threading.Lock()
        self._by_name: dict[
            tuple[str | None, str], Authorizer
        ] = {}  # by the name of credentials, and what is asked for
        self._resting: dict[str, float] = {}  # mirrors, and until when
        self._distrusted: set[tuple[str, Digest]] = set()

    def first(
        self,
        reference: Reference,
        name: str | None,
        ask: Callable[[Route], T],
        digest: Digest | None = None,
        may: Callable[[Mirror], bool] = lambda _: True,
    ) -> T:
        """The first answer: of the mirrors that *may* be asked (for *digest*, if it is one), else of the registry.

        The registry knows us by the credentials called *name*, if there is one. Raises what *ask* raises of it.
        """
        home = self._home(reference, name)
        for route in self._mirrors(reference):
            if route.mirror is None or not may(route.mirror) or self._is_to_be_left_alone(route, digest):
                continue
            try:
                return ask(route)
            except DuccError as error:
                self._pass_over(route, digest, error)
        return ask(home)

    def distrust(self, route: Route, digest: Digest) -> None:
        """Never ask that mirror for *digest* again: it sent something else."""
        with self._guard:
            if (route.place, digest) in self._distrusted:
                return
            if len(self._distrusted) >= MAX_DISTRUSTED:
                self._distrusted.clear()
            self._distrusted.add((route.place, digest))
        log.warning("mirror sent wrong bytes: image=%s digest=%s", route.reference, digest)

    def for_pushing(self, reference: Reference, name: str | None) -> Route:
        """The way to the registry itself, which is asked to let us write, too."""
        return self._home(reference, name, PUSH)

    def _home(self, reference: Reference, name: str | None, actions: str = PULL) -> Route:
        self._refuse_plain(reference)
        if name is None:
            found = self._settings.closest(reference, lambda at: at.credentials)
            name = found[1].credentials if found else None
        return Route(reference, self._known_as(name, actions))

    def _mirrors(self, reference: Reference) -> list[Route]:
        found = self._settings.closest(reference, lambda at: at.mirrors)
        if found is None:
            return []
        area, at = found
        routes = []
        for mirror in at.mirrors:
            if mirror.area.namespace or area.below(reference.repository):
                mirrored = mirror.reference(area, reference)
                self._refuse_plain(mirrored)
                routes.append(Route(mirrored, self._known_as(mirror.credentials), mirror))
        return routes

    def _refuse_plain(self, reference: Reference) -> None:
        if reference.scheme == "https" or is_this_machine(origin(reference.base_url)[1]):
            return
        if not self._settings.of_registry(reference.registry, "http").insecure:
            raise PlainHttp(f"{reference}: http is used only where registries.yaml says `insecure: true`")

    def _known_as(self, name: str | None, actions: str = PULL) -> Authorizer:
        with self._guard:
            if (name, actions) not in self._by_name:
                credentials = self._credentials if name is None else self._settings.named(name)
                self._by_name[name, actions] = self._authorizer(credentials, actions)
            return self._by_name[name, actions]

    def _authorizer(self, credentials: Source, actions: str) -> Authorizer:
        def token_servers(reference: Reference) -> tuple[str, ...]:
            return self._settings.of_registry(reference.registry, reference.scheme).token_servers

        return Authorizer(self._transport, credentials, self._clock, token_servers, actions)

    def _is_to_be_left_alone(self, route: Route, digest: Digest | None) -> bool:
        with self._guard:
            resting = self._resting.get(route.place, 0.0) > self._clock()
            return resting or (digest is not None and (route.place, digest) in self._distrusted)

    def _pass_over(self, route: Route, digest: Digest | None, error: DuccError) -> None:
        if isinstance(error, DigestMismatch) and digest is not None:
            self.distrust(route, digest)
        elif not error.retryable and not isinstance(error, Untrusted):
            log.info("mirror passed over: error=%s", error)
        else:
            self._let_rest(route, error)

    def _let_rest(self, route: Route, error: DuccError) -> None:
        with self._guard:
            news = self._resting.get(route.place, 0.0) <= self._clock()
            self._resting[route.place] = self._clock() + MIRROR_REST_SECONDS
        if news:
            log.warning("mirror left alone: mirror=%s seconds=%.0f error=%s", route.place, MIRROR_REST_SECONDS, error)
