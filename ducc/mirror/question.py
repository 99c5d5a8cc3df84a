"""What a client asks of a registry, read from a request's path and query. Pure: no I/O.

Images are published under the name of their own registry, which a request gives in one of three ways: `?ns=`, as
containerd says it to mirrors; the first component of the name, if it looks like a registry's, as podman is configured;
else it is the default. Whatever a path says, what comes out are well-formed names. Source: OCI distribution-spec.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from ducc.image.digest import Digest, MalformedDigest
from ducc.image.reference import DOCKER_HUB, MalformedReference, Reference, is_tag
from ducc.mirror.refusal import Refusal, bad_digest, bad_name

LONGEST_PATH = 2048  # bytes
MOST_TAGS = 1000  # of one answer

_SHAPE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<what>[^/]+)")
_NAME = re.compile("[a-z0-9._:/-]+")
_REGISTRY = re.compile(r"[a-z0-9._:\[\]-]*")
_NUMBER = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Base:
    """Is this a registry?"""


@dataclass(frozen=True, slots=True)
class ManifestOf:
    """The manifest or index that *reference* names, by its digest if it has one."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class BlobOf:
    """The blob with *digest* of the image that *reference* names in part: its tag means nothing."""

    reference: Reference
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagsOf:
    """The tags of *reference*'s name (its own means nothing) beyond *after*, *limit* at most.

    The client said *asked_as* and *namespace*.
    """

    reference: Reference
    asked_as: str
    namespace: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True)
class ReferrersOf:
    """What refers to a manifest: signatures and the like, none of which are published."""


Question = Base | ManifestOf | BlobOf | TagsOf | ReferrersOf


def read_question(raw_path: bytes, query: bytes, default_registry: str = DOCKER_HUB) -> Question:
    """Read a request. Raises `Refusal`."""
    path = _decoded(raw_path)
    if path in ("/v2", "/v2/"):
        return Base()
    match = _SHAPE.fullmatch(path)
    if match is None:
        raise Refusal(
            404, "UNSUPPORTED", "only pulling is possible here: manifests, blobs, tags and referrers of images"
        )
    options = _options(query)
    named = _named(match["name"], options.get("ns", ""), default_registry)
    match match["kind"]:
        case "manifests":
            return ManifestOf(_with_locator(named, match["what"]))
        case "blobs":
            return BlobOf(named, _digest(match["what"]))
        case "referrers":
            _digest(match["what"])
            return ReferrersOf()
    if match["what"] != "list":
        raise Refusal(404, "UNSUPPORTED", "of tags there is only the list")
    return TagsOf(named, match["name"], options.get("ns", ""), options.get("last", ""), _limit(options.get("n", "")))


def _decoded(raw_path: bytes) -> str:
    if len(raw_path) > LONGEST_PATH:
        raise bad_name("the path is too long for any image")
    try:
        path = unquote_to_bytes(raw_path).decode("ascii")
    except UnicodeDecodeError:
        raise bad_name("a path with bytes that no image's name has") from None
    if not path.isprintable():
        raise bad_name("a path with characters that no image's name has")
    return path


def _options(query: bytes) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(query.decode("ascii"), max_num_fields=16))
    except ValueError:
        raise bad_name("a query that can't be read") from None


def _named(name: str, namespace: str, default_registry: str) -> Reference:
    """The image *name*, with a tag that stands for any."""
    if not _NAME.fullmatch(name) or not _REGISTRY.fullmatch(namespace):
        raise bad_name("a malformed name: lower-case letters and digits between single . _ - or /")
    first, slash, rest = name.partition("/")
    if namespace:
        registry = namespace
    elif slash and (first == "localhost" or "." in first or ":" in first):
        registry, name = first, rest
    else:
        registry = default_registry
    try:
        return Reference.parse(f"https://{registry}/{name}:any")
    except MalformedReference as error:
        raise bad_name(error.reason) from error


def _with_locator(named: Reference, locator: str) -> Reference:
    if ":" in locator:
        return Reference(named.scheme, named.registry, named.repository, None, _digest(locator))
    if not is_tag(locator):
        raise Refusal(400, "MANIFEST_INVALID", "a malformed tag: up to 128 of A-Z a-z 0-9 _ . - and not . or - first")
    return named.with_tag(locator)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except MalformedDigest as error:
        raise bad_digest(str(error)) from error


def _limit(text: str) -> int:
    if text and not _NUMBER.fullmatch(text):
        raise Refusal(400, "UNSUPPORTED", "n: wanted a number")
    return min(int(text), MOST_TAGS) if text else MOST_TAGS
