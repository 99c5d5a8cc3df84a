"""What a registry holds: manifests, configs, tags and blobs.

Manifests and configs are small: they are read whole, compared with their digests, and parsed strictly. Layer blobs are
streamed; a broken connection is taken up again at the byte where it broke. Names in URLs come from oras, sending and
reading is done by our own transport; `docs/decisions/registry-on-oras.md` says why.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from oras.container import Container

from ducc.errors import DuccError
from ducc.image.config import ImageConfig, MalformedConfig
from ducc.image.digest import Digest, DigestMismatch, MalformedDigest
from ducc.image.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    Platform,
    UnsupportedImage,
    parse_manifest,
)
from ducc.image.platform import LINUX_AMD64, NoSuchPlatform, choose, normalised
from ducc.image.reference import Reference, is_tag
from ducc.image.strictjson import MAX_BYTES, MalformedDocument, read_object
from ducc.registry.auth import AccessDenied, Authorizer, Credentials, Headers
from ducc.transport import READ_SIZE, Body, Reply, Transport, Unreachable, origin

log = logging.getLogger(__name__)

MAX_INDEX_DEPTH = 4
MAX_TAGS = 100_000
MAX_TAG_PAGES = 10_000
MAX_TAG_PAGE_BYTES = 16 * 1024 * 1024
MAX_RESUMES = 8

_TAGS_PER_PAGE = 1000
_ACCEPT = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}
_ANSWERS = frozenset({200, 206, 401, 403, 404})
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d{1,19})-\d{1,19}/(?P<total>\d{1,19}|\*)")

Answer = TypeVar("Answer", Reply, Body)


class NoSuchImage(DuccError):
    """The registry has no image of that name."""

    exit_code = 85


class CaptiveAnswer(DuccError):
    """A web page stands where an image should: a login page, a proxy's notice."""

    exit_code = 86


class WrongLength(DuccError):
    """A blob has not as many bytes as its descriptor says."""

    exit_code = 20


class UnusableTagList(DuccError):
    """A tag list that is too long, malformed, or continues somewhere else."""

    exit_code = 87


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the registry has it, every part verified. *index* is what the reference names, if it names one."""

    reference: Reference
    manifest: Manifest
    index: Index | None
    config: ImageConfig
    warnings: tuple[str, ...] = ()  # what an operator may want to know, and what stopped nothing


class Registry:
    """Asks any number of registries, each with the credentials that are meant for it. Threads may share it."""

    def __init__(self, transport: Transport | None = None, credentials: Credentials | None = None) -> None:
        self.transport = transport or Transport()
        self._authorizer = Authorizer(self.transport, credentials or Credentials())

    def resolve(self, reference: Reference, platform: Platform = LINUX_AMD64) -> Image:
        """Find the build of an image for *platform*, its manifest and its config.

        A build that the reference names itself, not through an index, is taken whatever processor it is for; a
        warning says so. Raises `NoSuchImage`, `AccessDenied`, `UnsupportedImage` and what the transport raises.
        """
        found = self._manifest(reference, reference.locator, reference.digest)
        index = found if isinstance(found, Index) else None
        for _ in range(MAX_INDEX_DEPTH):
            if isinstance(found, Manifest):
                break
            entry = choose(found, platform, str(reference))
            found = self._manifest(reference, str(entry.digest), entry.digest)
        if isinstance(found, Index):
            raise UnsupportedImage(f"{reference}: an index in an index, more than {MAX_INDEX_DEPTH} deep")
        config = self._config(reference, found)
        if config.os.lower() != platform.os.lower():
            raise NoSuchPlatform(str(reference), platform, [config.platform])
        return Image(reference, found, index, config, _warnings(reference, found, config, platform))

    def manifest_digest(self, reference: Reference) -> Digest:
        """What the reference names now, by one HEAD request; a reference with a digest never names anything else."""
        if reference.digest is not None:
            return reference.digest
        url = _url(reference, _container(reference).manifest_url(reference.locator))
        reply = self._fetch(reference, url, "HEAD", _ACCEPT, limit=0)
        announced = _announced_digest(reference, reply.headers)
        return announced or self._manifest(reference, reference.locator, None).digest

    def tags(self, reference: Reference) -> Iterator[str]:
        """All tags of the image name, in the registry's order, page by page. Malformed ones are left out."""
        url = first = _url(reference, _container(reference).tags_url(_TAGS_PER_PAGE))
        count = skipped = 0
        asked: set[str] = set()
        while url not in asked and len(asked) < MAX_TAG_PAGES:
            asked.add(url)
            reply = self._fetch(reference, url, limit=MAX_TAG_PAGE_BYTES)
            for tag in _tags_in(reference, reply):
                count += 1
                if count > MAX_TAGS:
                    raise UnusableTagList(f"{reference}: more than {MAX_TAGS} tags: name the tags one by one")
                if is_tag(tag):
                    yield tag
                else:
                    skipped += 1
            following = _next_page(reference, first, url, reply.headers.get("Link", ""))
            if following is None:
                break
            url = following
        else:
            raise UnusableTagList(f"{reference}: the tag list has no end")
        if skipped:
            log.warning("malformed tags left out: image=%s count=%d", reference, skipped)

    def open_blob(self, reference: Reference, descriptor: Descriptor, offset: int = 0) -> "BlobStream":
        """Begin to read a blob of the image, from *offset* on, which is less than its size.

        Raises `NoSuchImage` when the registry does not have it.
        """
        return BlobStream(self, reference, descriptor, offset)

    def blob_body(self, reference: Reference, digest: Digest, offset: int) -> Body:
        """The answer to a request for a blob from *offset* on; the server may ignore the offset (status 200)."""
        url = _url(reference, _container(reference).get_blob_url(str(digest)))
        headers = {"Range": f"bytes={offset}-"} if offset else {}

        def send(authorization: Headers) -> Body:
            return self.transport.open(url, headers={**headers, **authorization}, accept=_ANSWERS)

        body = self._authorized(reference, send)
        try:
            _refuse(reference, body, f"blob {digest}")
        except DuccError:
            body.close()
            raise
        return body

    def _manifest(self, reference: Reference, locator: str, expected: Digest | None) -> Manifest | Index:
        url = _url(reference, _container(reference).manifest_url(locator))
        reply = self._fetch(reference, url, headers=_ACCEPT)
        actual = Digest.of(reply.body)
        for named in (expected, _announced_digest(reference, reply.headers)):
            if named not in (None, actual):
                raise DigestMismatch(f"{reference}: manifest {locator}", named, actual)
        return parse_manifest(reply.body, reply.headers.get("Content-Type", ""), f"{reference}: manifest {actual}")

    def _config(self, reference: Reference, manifest: Manifest) -> ImageConfig:
        source = f"{reference}: config {manifest.config.digest}"
        if manifest.config.size > MAX_BYTES:
            raise MalformedConfig(f"{source}: longer than {MAX_BYTES} bytes")
        with self.open_blob(reference, manifest.config) as stream:
            raw = stream.read(manifest.config.size)
            stream.read(1)  # nothing may follow
        if (actual := Digest.of(raw)) != manifest.config.digest:
            raise DigestMismatch(source, manifest.config.digest, actual)
        config = ImageConfig.parse(raw, source)
        if len(config.diff_ids) != len(manifest.layers):
            raise MalformedConfig(f"{source}: {len(config.diff_ids)} diff ids for {len(manifest.layers)} layers")
        return config

    def _fetch(
        self,
        reference: Reference,
        url: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_BYTES,
    ) -> Reply:
        def send(authorization: Headers) -> Reply:
            sent = {**(headers or {}), **authorization}
            return self.transport.fetch(url, method=method, limit=limit, headers=sent, accept=_ANSWERS)

        reply = self._authorized(reference, send)
        _refuse(reference, reply, "image")
        return reply

    def _authorized(self, reference: Reference, send: Callable[[Headers], Answer]) -> Answer:
        """Send, and once more when the registry itself, not a place it redirects to, asks who we are."""
        sent = self._authorizer.headers(reference)
        answer = send(sent)
        if answer.status != 401 or origin(answer.url) != origin(reference.base_url):
            return answer
        if isinstance(answer, Body):
            answer.discard()
        return send(self._authorizer.answer(reference, answer.headers.get("WWW-Authenticate", ""), sent))


class BlobStream:
    """The bytes of one blob from an offset on, as they arrive. Its digest is not verified here; its length is.

    A read returns fewer bytes than asked for only at the end. The end is told only when exactly as many bytes as the
    descriptor says have come: a longer blob raises `WrongLength`, a shorter one `Unreachable` after some tries.
    """

    def __init__(self, registry: Registry, reference: Reference, descriptor: Descriptor, offset: int = 0) -> None:
        self._registry, self._reference, self._descriptor = registry, reference, descriptor
        self._offset = offset
        self._breaks = 0
        self._at_end = False
        self._body = self._open()
        self._skip_what_is_known()

    def read(self, size: int = READ_SIZE) -> bytes:
        """The next *size* bytes, fewer only at the end."""
        parts, missing = [], size
        while missing and (data := self._some(missing)):
            parts.append(data)
            missing -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill *buffer*; return how many bytes there are in it, fewer than it holds only at the end."""
        view, filled = memoryview(buffer), 0
        while filled < len(view) and (data := self._some(len(view) - filled)):
            view[filled : filled + len(data)] = data
            filled += len(data)
        return filled

    def close(self) -> None:
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _some(self, size: int) -> bytes:
        """The next bytes, at least one before the end."""
        while left := self._descriptor.size - self._offset:
            try:
                data = self._body.read1(min(size, READ_SIZE, left))
            except Unreachable as error:
                self._resume(str(error))
                continue
            if data:
                self._offset += len(data)
                return data
            self._resume(f"ends {left} bytes too early")
        self._expect_end()
        return b""

    def _expect_end(self) -> None:
        """Nothing may follow. A connection that breaks now breaks nothing: every byte is here."""
        if self._at_end:
            return
        with contextlib.suppress(Unreachable):
            if self._body.read1(1):
                raise WrongLength(f"{self._source}: longer than the {self._descriptor.size} bytes announced")
        self._at_end = True

    def _resume(self, reason: str) -> None:
        """Ask again for what is missing, a bounded number of times."""
        while True:
            self._body.close()
            self._breaks += 1
            if self._breaks > MAX_RESUMES:
                raise Unreachable(f"{self._source}: given up after {MAX_RESUMES} resumptions: {reason}")
            log.info("blob resumed: source=%s offset=%d reason=%s", self._source, self._offset, reason)
            self._registry.transport.pause(self._breaks)
            self._body = self._open()
            try:
                self._skip_what_is_known()
            except Unreachable as error:
                reason = str(error)
            else:
                return

    def _open(self) -> Body:
        body = self._registry.blob_body(self._reference, self._descriptor.digest, self._offset)
        missing = self._descriptor.size - (self._offset if body.status == 206 else 0)
        if body.length not in (None, missing) or not self._continues(body):
            body.close()
            raise WrongLength(f"{self._source}: the registry has not the {self._descriptor.size} bytes announced")
        return body

    def _continues(self, body: Body) -> bool:
        if body.status != 206:
            return True
        match = _CONTENT_RANGE.fullmatch(body.headers.get("Content-Range", ""))
        return (
            match is not None
            and int(match["first"]) == self._offset
            and match["total"] in ("*", str(self._descriptor.size))
        )

    def _skip_what_is_known(self) -> None:
        """A server that ignores ranges sends everything again."""
        known = self._offset if self._body.status == 200 else 0
        while known:
            data = self._body.read1(min(READ_SIZE, known))
            if not data:
                raise Unreachable(f"{self._source}: ends too early")
            known -= len(data)

    @property
    def _source(self) -> str:
        return f"{self._reference}: blob {self._descriptor.digest}"


def _container(reference: Reference) -> Container:
    """Oras names the URLs. Its parser gets one harmless component: `localhost/a.b/c` it would read as host a.b."""
    namespace, _, name = reference.repository.rpartition("/")
    container = Container(name)
    container.registry, container.namespace = reference.registry, namespace
    return container


def _url(reference: Reference, place: str) -> str:
    return f"{reference.scheme}://{place}"


def _refuse(reference: Reference, answer: Reply | Body, what: str) -> None:
    if answer.status == 404:
        raise NoSuchImage(f"{reference}: the registry has no such {what}: check the name and the tag")
    if answer.status in (401, 403):
        raise AccessDenied(f"{reference}: the registry denies access ({answer.status}): check name and credentials")
    if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise CaptiveAnswer(f"{reference}: a web page came instead of the {what}: is there a login or proxy between?")


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
    links = requests.utils.parse_header_links(link[:8192]) if link else []
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


def _warnings(reference: Reference, manifest: Manifest, config: ImageConfig, wanted: Platform) -> tuple[str, ...]:
    """What does not add up in an image and does not stop it."""
    warnings = []
    if normalised(config.platform).architecture != normalised(wanted).architecture:
        warnings.append(f"{reference}: its config says {config.platform}, {wanted} was asked for")
    if config.layers_in_history not in (None, len(manifest.layers)):
        warnings.append(
            f"{reference}: its history tells of {config.layers_in_history} layers, not {len(manifest.layers)}"
        )
    return tuple(warnings)
