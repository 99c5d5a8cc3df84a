"""What a registry holds: manifests, configs, tags and blobs.

Manifests and configs are small: they are read whole, compared with their digests, and parsed strictly. Layer blobs are
streamed; a broken connection is taken up again at the byte where it broke. Mirrors are asked first, where there are
any. Names in URLs come from oras, sending and reading is done by our own transport;
`docs/decisions/registry-on-oras.md` says why, `docs/registries.md` what an operator can set.
"""

import contextlib
import copy
import functools
import http
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self, TypeVar
from urllib.parse import urljoin, urlsplit

from ducc.errors import DuccError
from ducc.image.config import ImageConfig, MalformedConfig
from ducc.image.digest import Digest, DigestMismatch, MalformedDigest
from ducc.image.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, Manifest, Platform, parse_manifest
from ducc.image.platform import LINUX_AMD64
from ducc.image.reference import Reference, is_tag
from ducc.image.strictjson import MAX_BYTES, MalformedDocument, read_object
from ducc.registry.area import known_as
from ducc.registry.auth import Headers
from ducc.registry.blob import BlobStream, Opener, Part, WrongLength
from ducc.registry.builds import Builds
from ducc.registry.builds import Image as Image  # what is handed out here
from ducc.registry.credentials import AccessDenied, Credentials, Source, Sources, credentials_from_environment
from ducc.registry.logins import LoginFile, login_files
from ducc.registry.manners import Counter, Limits, Manners
from ducc.registry.places import blob_url, manifest_url, tags_url
from ducc.registry.push import Push, Pusher
from ducc.registry.remembered import Remembered
from ducc.registry.routes import Route, Routes
from ducc.registry.settings import Mirror, RegistriesSettings
from ducc.transport import Body, HttpStatus, Reply, Transport

log = logging.getLogger(__name__)

MAX_TAGS = 100_000
MAX_TAG_PAGES = 10_000
MAX_TAG_PAGE_BYTES = 16 * 1024 * 1024

_TAGS_PER_PAGE = 1000
_ACCEPT = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}
_ANSWERS = frozenset({200, 206, 401, 403, 404})
_NO_HEAD = frozenset({400, 405, 501})  # how registries say that they do not know the method
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d{1,19})-\d{1,19}/(?P<total>\d{1,19}|\*)")

T = TypeVar("T")


class NoSuchImage(DuccError):
    """The registry has no image of that name."""

    exit_code = 85


class CaptiveAnswer(DuccError):
    """A web page stands where an image should: a login page, a proxy's notice."""

    exit_code = 86


class UnusableTagList(DuccError):
    """A tag list that is too long, malformed, or continues somewhere else."""

    exit_code = 87


class Registry:
    """Asks any number of registries, each with the credentials that are meant for it. Threads may share it."""

    def __init__(
        self,
        transport: Transport | None = None,
        credentials: Source | None = None,
        settings: RegistriesSettings | None = None,
        manners: Manners | None = None,
    ) -> None:
        settings = settings or RegistriesSettings()
        self._manners = manners or Manners(settings)
        self._transport = transport or Transport(manners=self._manners)
        self._routes = Routes(settings, self._transport, credentials or Credentials())
        self._settings = settings
        self._remembered = Remembered()
        self._name: str | None = None  # of the credentials

    @classmethod
    def from_settings(
        cls,
        settings: RegistriesSettings,
        environ: Mapping[str, str] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> Self:
        """A registry client as the operator has set it up.

        With *environ* the Go program's variables count, and the logins that other programs have left. Whoever wants to
        end in time hands in a *sleep* that can be woken, such as `Event.wait`. Raises `MalformedCredentials`.
        """
        environ = environ or {}
        logins = [LoginFile(path) for path in login_files(environ)]
        sources = Sources([credentials_from_environment(environ), *logins])
        settings = settings.with_proxies(environ)
        manners = Manners(settings, sleep=sleep)
        return cls(Transport(manners=manners, sleep=sleep), sources, settings, manners)

    def using(self, name: str | None) -> "Registry":
        """The same registries, asked with the credentials called *name*; None is those that are meant for an image.

        What is known of limits, mirrors and tokens is shared. Raises `MalformedCredentials` when there are none.
        """
        if name is not None:
            self._settings.named(name)
        other = copy.copy(self)
        other._name = name
        return other

    def limits(self) -> dict[str, Limits]:
        """What each registry told of its limits, by its name."""
        return self._manners.limits()

    def resolve(self, reference: Reference, platform: Platform = LINUX_AMD64, digest: Digest | None = None) -> Image:
        """Find the build of an image for *platform*, its manifest and its config.

        A build that the reference names itself, not through an index, is taken whatever processor it is for; a
        warning says so. With *digest* that is what is found, whatever the tag names by now. Raises `NoSuchImage`,
        `AccessDenied`, `UnsupportedImage` and what the transport raises.
        """
        return self.resolve_platforms(reference, (platform,), digest)[0][1]

    def resolve_platforms(
        self, reference: Reference, platforms: Sequence[Platform] | None, digest: Digest | None = None
    ) -> list[tuple[Platform, Image]]:
        """Find the builds of an image for *platforms* in their order; None is every Linux build there is.

        All are parts of what the reference names at one moment; with *digest*, of that. A platform without a build is
        a warning of the first image as long as there is another; `NoSuchPlatform` if not. What the reference names
        directly, not through an index, is one build: for the first of *platforms* that runs it, else for the first,
        with a warning. Raises as `resolve` does.
        """
        builds = Builds(
            reference,
            lambda locator: self._manifest(reference, locator),
            lambda manifest: self._config(reference, manifest),
        )
        return builds.find(str(digest or reference.locator), platforms)

    def manifest_digest(self, reference: Reference) -> Digest:
        """What the reference names now, by one HEAD request; a reference with a digest never names anything else.

        A registry that does not answer HEAD, or not with a digest, is asked for the manifest.
        """
        if reference.digest is not None:
            return reference.digest
        announced = self._first(reference, self._announced)
        return announced or self._manifest(reference, reference.locator).digest

    def tags(self, reference: Reference) -> Iterator[str]:
        """All tags of the image name, in the registry's order. Malformed ones are left out.

        Mirrors are asked only if they are said to list tags as the registry does: most know what they have, no more.
        """
        return iter(self._first(reference, self._tags, may=lambda mirror: mirror.lists_tags))

    def open_blob(self, reference: Reference, descriptor: Descriptor, offset: int = 0) -> BlobStream:
        """Begin to read a blob of the image, from *offset* on, which is less than its size.

        Raises `NoSuchImage` when the registry does not have it.
        """

        def part(at: int, validator: tuple[str, str]) -> Part:
            def ask(route: Route) -> Part:
                return self._part(route, descriptor, at, validator)

            return self._first(reference, ask, descriptor.digest)

        slot = self._manners.counter(known_as(reference.registry, reference.scheme)).download()
        opener = Opener(part, self._transport.pause, slot)
        return BlobStream(opener, f"{reference}: blob {descriptor.digest}", descriptor, offset)

    def pushed(self, reference: Reference) -> Digest | None:
        """What the tag names at the registry itself, mirrors apart; None if it names nothing, or nobody is told."""
        try:
            return Pusher(self._transport, self._routes.for_pushing(reference, self._name)).pushed()
        except (AccessDenied, NoSuchImage):
            return None

    def push(self, reference: Reference, image: Push) -> None:
        """Let the tag name an image, all of whose parts are there then. What the registry has is not sent again.

        Raises `PushRefused`, `AccessDenied` and what the transport raises; then the tag names what it did.
        """
        Pusher(self._transport, self._routes.for_pushing(reference, self._name)).push(image)

    def _first(
        self,
        reference: Reference,
        ask: Callable[[Route], T],
        digest: Digest | None = None,
        may: Callable[[Mirror], bool] = lambda _: True,
    ) -> T:
        return self._routes.first(reference, self._name, ask, digest, may)

    def _manifest(self, reference: Reference, locator: str) -> Manifest | Index:
        """What a tag or digest names; what has come already is not asked for again."""
        expected = None if is_tag(locator) else Digest.parse(locator)
        known = expected and self._remembered.get((self._name, reference), expected)
        if isinstance(known, Manifest | Index):
            return known

        def ask(route: Route) -> Manifest | Index:
            url = manifest_url(route.reference, locator)
            self._counter(route).wait_to_count()
            reply = self._fetch(route, url, headers=_ACCEPT)
            actual = Digest.of(reply.body)
            for named in (expected, _announced_digest(route.reference, reply.headers)):
                if named not in (None, actual):
                    raise DigestMismatch(f"{route.reference}: manifest {locator}", named, actual)
            source = f"{route.reference}: manifest {actual}"
            return parse_manifest(reply.body, reply.headers.get("Content-Type", ""), source)

        found = self._first(reference, ask, expected)
        self._remembered.put((self._name, reference), found)
        return found

    def _announced(self, route: Route) -> Digest | None:
        """What HEAD says that the reference names; None if it does not say."""
        url = manifest_url(route.reference, route.reference.locator)
        try:
            reply = self._ask(route, url, "HEAD", _ACCEPT, limit=0)
        except HttpStatus as error:
            if error.status not in _NO_HEAD:
                raise
            return None
        if reply.status == http.HTTPStatus.FORBIDDEN:
            return None  # some stores that registries redirect to let pass nothing but GET
        _refuse(route.reference, reply, "image")
        return _announced_digest(route.reference, reply.headers)

    def _config(self, reference: Reference, manifest: Manifest) -> ImageConfig:
        """The config that a manifest names; what has come already is not asked for again."""
        digest, size = manifest.config.digest, manifest.config.size
        source = f"{reference}: config {digest}"
        if size > MAX_BYTES:
            raise MalformedConfig(f"{source}: longer than {MAX_BYTES} bytes")
        config = self._remembered.get((self._name, reference), digest)
        if not isinstance(config, ImageConfig) or len(config.raw) != size:
            raw = self._first(reference, lambda route: self._small_blob(route, manifest.config), digest)
            config = ImageConfig.parse(raw, source)
            self._remembered.put((self._name, reference), config)
        if len(config.diff_ids) != len(manifest.layers):
            raise MalformedConfig(f"{source}: {len(config.diff_ids)} diff ids for {len(manifest.layers)} layers")
        return config

    def _small_blob(self, route: Route, descriptor: Descriptor) -> bytes:
        """A whole blob, verified."""
        source = f"{route.reference}: config {descriptor.digest}"
        opener = Opener(
            lambda at, validator: self._part(route, descriptor, at, validator),
            self._transport.pause,
            contextlib.nullcontext(),
        )
        with BlobStream(opener, source, descriptor) as stream:
            raw = stream.read(descriptor.size)
            stream.read(1)  # nothing may follow
        if (actual := Digest.of(raw)) != descriptor.digest:
            raise DigestMismatch(source, descriptor.digest, actual)
        return raw

    def _part(self, route: Route, descriptor: Descriptor, offset: int, validator: tuple[str, str]) -> Part:
        """The answer to a request for a blob from *offset* on; the server may ignore the offset (status 200).

        *validator* is an entity tag and the place that it is of: there, the rest of another entity is no use.
        """
        url = blob_url(route.reference, descriptor.digest)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and validator[1] and validator[0] == route.place:
            headers["If-Range"] = validator[1]

        def send(authorization: Headers) -> Body:
            sent = {**headers, **authorization}
            return self._transport.open(url, headers=sent, accept=_ANSWERS, attempts=route.attempts)

        body = route.authorized(send)
        try:
            _refuse(route.reference, body, f"blob {descriptor.digest}")
            _refuse_other_length(route.reference, body, descriptor, offset)
        except DuccError:
            body.close()
            raise
        distrust = functools.partial(self._routes.distrust, route, descriptor.digest) if route.mirror else None
        return Part(body, route.place, self._counter(route).arrived, distrust)

    def _tags(self, route: Route) -> list[str]:
        reference = route.reference
        url = first = tags_url(reference, _TAGS_PER_PAGE)
        tags: list[str] = []
        count = 0
        asked: set[str] = set()
        while url not in asked and len(asked) < MAX_TAG_PAGES:
            asked.add(url)
            reply = self._fetch(route, url, limit=MAX_TAG_PAGE_BYTES)
            page = _tags_in(reference, reply)
            count += len(page)
            if count > MAX_TAGS:
                raise UnusableTagList(f"{reference}: more than {MAX_TAGS} tags: name the tags one by one")
            tags += filter(is_tag, page)
            following = _next_page(reference, first, url, reply.headers.get("Link", ""))
            if following is None:
                break
            url = following
        else:
            raise UnusableTagList(f"{reference}: the tag list has no end")
        if count > len(tags):
            log.warning("malformed tags left out: image=%s count=%d", reference, count - len(tags))
        return tags

    def _fetch(self, route: Route, url: str, headers: Mapping[str, str] | None = None, limit: int = MAX_BYTES) -> Reply:
        """A whole answer that is one."""
        reply = self._ask(route, url, "GET", headers or {}, limit)
        _refuse(route.reference, reply, "image")
        return reply

    def _ask(self, route: Route, url: str, method: str, headers: Mapping[str, str], limit: int) -> Reply:
        """A whole answer, whether it is one or a refusal."""

        def send(authorization: Headers) -> Reply:
            sent = {**headers, **authorization}
            return self._transport.fetch(
                url, method=method, limit=limit, headers=sent, accept=_ANSWERS, attempts=route.attempts
            )

        return route.authorized(send)

    def _counter(self, route: Route) -> Counter:
        return self._manners.counter(route.place)


def _refuse(reference: Reference, answer: Reply | Body, what: str) -> None:
    if answer.status == 404:
        raise NoSuchImage(f"{reference}: the registry has no such {what}: check the name and the tag")
    if answer.status in (401, 403):
        raise AccessDenied(f"{reference}: the registry denies access ({answer.status}): check name and credentials")
    if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise CaptiveAnswer(f"{reference}: a web page came instead of the {what}: is there a login or proxy between?")


def _refuse_other_length(reference: Reference, body: Body, descriptor: Descriptor, offset: int) -> None:
    """Refuse what can't be the blob from *offset* on, or from its beginning."""
    missing = descriptor.size - (offset if body.status == 206 else 0)
    continues = body.status != 206
    if match := _CONTENT_RANGE.fullmatch(body.headers.get("Content-Range", "")):
        continues = continues or (int(match["first"]) == offset and match["total"] in ("*", str(descriptor.size)))
    if body.length not in (None, missing) or not continues:
        source = f"{reference}: blob {descriptor.digest}"
        raise WrongLength(f"{source}: the registry has not the {descriptor.size} bytes announced")


def _announced_digest(reference: Reference, headers: Mapping[str, str]) -> Digest | None:
    text = headers.get("Docker-Content-Digest")
    try:
        return Digest.parse(text) if text else None
    except MalformedDigest as error:
        raise MalformedDigest(f"{reference}: Docker-Content-Digest: {error}") from error


def _tags_in(reference: Reference, reply: Reply) -> tuple[str, ...]:
    try:
        return read_object(reply.body, f"{reference}: tag list", MAX_TAG_PAGE_BYTES).texts("tags") or ()
    except MalformedDocument as error:
        raise UnusableTagList(str(error)) from error


def _next_page(reference: Reference, first: str, url: str, link: str) -> str | None:
    """Where the tag list continues. Only the query of the link is followed, so it leads nowhere else."""
    if not link:
        return None
    from requests.utils import parse_header_links  # takes long to import, and most lists are short

    links = parse_header_links(link[:8192])
    following = next((entry["url"] for entry in links if entry.get("rel") == "next"), None)
    if following is None:
        return None
    try:
        target, home = urlsplit(urljoin(url, following)), urlsplit(first)
        elsewhere = (target.netloc, target.path) != (home.netloc, home.path)
    except ValueError:
        elsewhere = True
    if elsewhere or not target.query.isascii() or not target.query.isprintable():
        raise UnusableTagList(f"{reference}: the tag list continues somewhere else")
    return home._replace(query=target.query).geturl()
