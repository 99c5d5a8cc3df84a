"""From a question to an answer: what is published, by the repositories in their order.

A repository that can't answer is passed over; if no other one has what is asked for, the client is told to come again,
and not that there is no such image.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from ducc.image.manifest import OCI_INDEX
from ducc.image.reference import Reference
from ducc.mirror.archives import Archives, Part
from ducc.mirror.images import BLOB, Document, PublishedImages
from ducc.mirror.question import Base, BlobOf, ManifestOf, Question, ReferrersOf, TagsOf
from ducc.mirror.refusal import Refusal, no_blob, no_manifest
from ducc.rootfs.locate import RepositoryUnavailable

JSON = "application/json"
NOT_MODIFIED = 304
_RANGE = re.compile("bytes=([0-9]{0,18})-([0-9]{0,18})")
_NO_REFERRERS = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
_BASE_HEADERS = {"docker-distribution-api-version": "registry/2.0"}

_Found = TypeVar("_Found")


class Answer(NamedTuple):
    """A response; its body is left out where the client asked for the head alone."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Part


class Answers:
    """What *repositories*, the preferred one first, say, and layers of theirs among *archives*. For any thread."""

    def __init__(self, repositories: Sequence[PublishedImages], archives: Archives | None = None) -> None:
        self._repositories = repositories
        self._archives = archives or Archives(None)

    def to(self, question: Question, headers: Mapping[str, str]) -> Answer:
        """Answer; *headers* are the request's, names in lower case. Raises `Refusal`."""
        match question:
            case Base():
                return _json(JSON, {}, _BASE_HEADERS)
            case ManifestOf(reference):
                found = self._first(lambda images: images.manifest(reference))
                if found is None:
                    raise no_manifest(_shown(reference))
                return _of_document(found, headers)
            case BlobOf():
                return _of_document(self._blob(question), headers)
            case ReferrersOf():
                return _json(OCI_INDEX, _NO_REFERRERS)
            case TagsOf():
                return self._tags(question)

    def _blob(self, question: BlobOf) -> Document:
        found = self._first(lambda images: images.config(question.reference, question.digest))
        if found is not None:
            return found
        name = f"{question.reference.registry}/{question.reference.repository}"
        digest = question.digest
        if not self._first(lambda images: digest in images.contents(question.reference).layers or None):
            raise no_blob(f"{digest} is in no published image of {name}")
        archive = self._archives.open(digest)
        if archive is None:
            raise no_blob(
                f"{digest} is a layer of {name}, which is published as files and not as an archive: "
                "let ducc-snapshotter start the image, or fetch the layer from its own registry"
            )
        return Document(archive, BLOB, digest)

    def _tags(self, question: TagsOf) -> Answer:
        found = self._first(lambda images: _any(images.contents(question.reference).tags))
        if found is None:
            reference = question.reference
            raise Refusal(404, "NAME_UNKNOWN", f"no tag of {reference.registry}/{reference.repository} is published")
        tags = [tag for tag in found if tag > question.after]
        page = tags[: question.limit]
        headers = {"link": _next_page(question, page[-1])} if page and len(page) < len(tags) else {}
        return _json(JSON, {"name": question.asked_as, "tags": page}, headers)

    def _first(self, ask: Callable[[PublishedImages], _Found | None]) -> _Found | None:
        problem: RepositoryUnavailable | None = None
        for images in self._repositories:
            try:
                if (found := ask(images)) is not None:
                    return found
            except RepositoryUnavailable as error:
                problem = error
        if problem is not None:
            raise Refusal(503, "UNAVAILABLE", str(problem), {"retry-after": "10"}) from problem
        return None


def refused(refusal: Refusal) -> Answer:
    """A refusal as a client is to see it."""
    headers = {"content-type": JSON, "cache-control": "no-store", **refusal.headers}
    return Answer(refusal.status, headers, refusal.body)


def _of_document(document: Document, asked: Mapping[str, str]) -> Answer:
    """The document, the range of it that is *asked* for, or that the client has it already."""
    etag = f'"{document.digest}"'
    size = len(document.data)
    headers = {
        "content-type": document.media_type,
        "docker-content-digest": str(document.digest),
        "etag": etag,
        "accept-ranges": "bytes",
        **_BASE_HEADERS,
    }
    if etag in asked.get("if-none-match", ""):
        return Answer(NOT_MODIFIED, headers, b"")
    wanted = _RANGE.fullmatch(asked.get("range", "")) if asked.get("if-range", etag) == etag else None
    if wanted is None or not (wanted[1] or wanted[2]):
        return Answer(200, headers, document.part(0, size))
    start, end = _bounds(wanted[1], wanted[2], size)
    if start >= end:
        raise Refusal(416, "SIZE_INVALID", f"it has {size} bytes", {"content-range": f"bytes */{size}"})
    return Answer(206, {**headers, "content-range": f"bytes {start}-{end - 1}/{size}"}, document.part(start, end))


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """From where, and up to where, of *size* bytes: `first-last`, `first-`, or `-<how many of the end>`."""
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


def _json(media_type: str, values: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(200, {"content-type": media_type, **(headers or {})}, json.dumps(values).encode())


def _next_page(question: TagsOf, last: str) -> str:
    """The link to the tags beyond *last*, in the words of the client's own question."""
    options = {"n": question.limit, "last": last} | ({"ns": question.namespace} if question.namespace else {})
    return f'</v2/{quote(question.asked_as)}/tags/list?{urlencode(options)}>; rel="next"'


def _any(tags: tuple[str, ...]) -> tuple[str, ...] | None:
    return tags or None


def _shown(reference: Reference) -> str:
    return str(reference).partition("://")[2]
