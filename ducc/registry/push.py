"""Pushing an image: its blobs, then its manifests by digest, then the one that the tag is to name.

What the registry has is not sent, so pushing again costs one question for each part. A blob is one upload: the registry
says where to, and takes the bytes with their digest. Tags move last, so whoever pulls gets the old image or the new.
Source: OCI distribution-spec, "Push".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlencode, urlsplit

from ducc.errors import DuccError
from ducc.image.digest import Digest, MalformedDigest
from ducc.image.manifest import INDEX_TYPES, MANIFEST_TYPES
from ducc.image.reference import Reference
from ducc.registry.auth import Headers
from ducc.registry.credentials import AccessDenied
from ducc.registry.places import blob_url, manifest_url, upload_url
from ducc.registry.routes import Route
from ducc.transport import HttpStatus, Reply, TemporaryStatus, Transport, Unreachable, redirect_target
from ducc.urls import origin

ATTEMPTS = 3  # for a whole upload, which is begun anew
MAX_ANSWER_BYTES = 1024 * 1024

_ANSWERS = frozenset({200, 201, 202, 401, 403, 404})
_ACCEPT = {"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))}


class PushRefused(DuccError):
    """A registry does not take what is pushed."""

    exit_code = 92


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, and what it is."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)


@dataclass(frozen=True, slots=True)
class Push:
    """All parts of an image. The last of *manifests* is what the tag is to name; those before it are its builds."""

    blobs: Sequence[bytes]
    manifests: Sequence[Document]

    @property
    def digest(self) -> Digest:
        """What the tag names when all is pushed."""
        return self.manifests[-1].digest


class Pusher:
    """Pushes to one image name, by *route*."""

    def __init__(self, transport: Transport, route: Route) -> None:
        self._transport, self._route = transport, route

    @property
    def _reference(self) -> Reference:
        return self._route.reference

    def pushed(self) -> Digest | None:
        """What the tag names now; None for nothing. Raises `AccessDenied`."""
        reply = self._ask("HEAD", manifest_url(self._reference, str(self._reference.tag)), _ACCEPT)
        if reply.status == 404:
            return None
        self._refuse_denial(reply)
        try:
            return Digest.parse(reply.headers.get("Docker-Content-Digest", ""))
        except MalformedDigest:
            return None

    def push(self, image: Push) -> None:
        """Push all of *image*; see `Registry.push`."""
        for blob in dict.fromkeys(image.blobs):
            self._put_blob(blob)
        *builds, last = image.manifests
        for build in builds:
            self._put_manifest(build, str(build.digest))
        self._put_manifest(last, str(self._reference.tag))

    def _put_blob(self, blob: bytes) -> None:
        for attempt in count(1):
            try:
                if not self._has_blob(Digest.of(blob)):
                    self._upload(blob)
                return
            except (Unreachable, TemporaryStatus):
                if attempt >= ATTEMPTS:
                    raise
                self._transport.pause(attempt)

    def _has_blob(self, digest: Digest) -> bool:
        return self._ask("HEAD", blob_url(self._reference, digest)).status == 200

    def _upload(self, blob: bytes) -> None:
        begin = upload_url(self._reference)
        begun = self._ask("POST", begin, data=b"", attempts=1)
        self._refuse_other_than(202, begun, "an upload")
        place = redirect_target(begin, begun.headers.get("Location", ""))
        separator = "&" if urlsplit(place).query else "?"
        target = f"{place}{separator}{urlencode({'digest': str(Digest.of(blob))})}"
        headers = {"Content-Type": "application/octet-stream"}
        self._refuse_other_than(201, self._ask("PUT", target, headers, blob, attempts=1), "a blob")

    def _put_manifest(self, document: Document, name: str) -> None:
        headers = {"Content-Type": document.media_type}
        reply = self._ask("PUT", manifest_url(self._reference, name), headers, document.data)
        self._refuse_other_than(201, reply, "a manifest")

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        attempts: int | None = None,
    ) -> Reply:
        """Send a request; only the registry itself is told who we are."""
        is_home = origin(url) == origin(self._reference.base_url)

        def send(authorization: Headers) -> Reply:
            return self._transport.fetch(
                url,
                method=method,
                limit=MAX_ANSWER_BYTES,
                headers={**(headers or {}), **(authorization if is_home else {})},
                accept=_ANSWERS,
                form=data,
                attempts=attempts,
            )

        try:
            return self._route.authorized(send)
        except HttpStatus as error:
            if error.retryable:
                raise
            raise PushRefused(f"{self._reference}: the registry does not take it: {error}") from error

    def _refuse_other_than(self, status: int, reply: Reply, what: str) -> None:
        self._refuse_denial(reply)
        if reply.status != status:
            raise PushRefused(f"{self._reference}: the registry takes {what} with {reply.status}, not {status}")

    def _refuse_denial(self, reply: Reply) -> None:
        if reply.status in (401, 403):
            denied = f"the registry does not let us push ({reply.status})"
            raise AccessDenied(f"{self._reference}: {denied}: check name and credentials")
