"""Image references: how a wish names an image.

    [scheme://]registry[:port]/repository[:tag][@sha256:hex]         the full form
    repository[:tag][@sha256:hex]                                    Docker's short form: an image of Docker Hub

The scheme is https unless the reference says `http://`. Without a scheme the first component is a registry only if it
has a dot or a colon or is `localhost`, as in the grammar of the distribution project, so no part can leave its place in
a path or a URL: no `..`, no user:password@, no query, no upper-case repository. Without tag and digest the tag is
`latest`. With both, the digest says which bytes, the tag where they are shown. Docker Hub has many names and stands in
paths under one of them (`docs/decisions/short-names.md`). Pure: no I/O.
"""

import ipaddress
import re
from dataclasses import dataclass, replace

from ducc.errors import BadInput
from ducc.image.digest import Digest, MalformedDigest

SCHEMES = ("https", "http")
MAX_REPOSITORY_LENGTH = 255
MAX_HOST_LENGTH = 253
DEFAULT_TAG = "latest"
DOCKER_HUB = "registry.hub.docker.com"  # in references and paths
DOCKER_HUB_HOST = "registry-1.docker.io"  # where its API answers

_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, DOCKER_HUB_HOST, "docker.io", "index.docker.io"})
_OFFICIAL = "library/"  # where Docker Hub keeps the images whose name has one component

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_REGISTRY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::(?P<port>[1-9][0-9]{0,4}))?")
_COMPONENT = "[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_WILDCARD = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9_.*-]{0,127}")
_IMAGE_ID = re.compile("[0-9a-f]{64}")
_SECRETS = re.compile(r"^(?P<scheme>[a-z]+://)?.*@(?!sha\d+:)", re.DOTALL)


class MalformedReference(BadInput):
    """A text is not an image reference. What looks like a password or a query is left out of the message."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{shown(text)}: {reason}")
        self.reason = reason


class NoRegistry(MalformedReference):
    """The reference has a scheme, and no registry after it."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "no registry: write https://registry.example.org/name:tag")


class NoTag(MalformedReference):
    """A `Reference` made of parts has neither tag nor digest; only a text that is parsed may leave both out."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "no tag and no digest: name one, for example :latest")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One image, or with a `*` in the tag all that match. A `Reference` in hand is well formed."""

    scheme: str
    registry: str  # host, or host:port; as it stands in paths; parsed: one name for Docker Hub, `DOCKER_HUB`
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise MalformedReference(str(self), f"scheme {self.scheme[:20]!r}: write https:// or http://")
        if fault := _registry_fault(self.registry) or _repository_fault(self.repository):
            raise MalformedReference(str(self), fault)
        if self.tag is None and self.digest is None:
            raise NoTag(str(self))
        if self.tag is not None and not (is_tag(self.tag) or self.is_wildcard):
            raise MalformedReference(str(self), "malformed tag: up to 128 of A-Z a-z 0-9 _ . - and not . or - first")
        if self.is_wildcard and self.digest is not None:
            raise MalformedReference(str(self), "a wildcard and a digest exclude each other")

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read a reference as people write it."""
        if not text.isascii() or not text.isprintable() or " " in text:
            raise MalformedReference(text, "only printable ASCII without spaces is allowed")
        scheme, separator, rest = text.rpartition("://")
        if "?" in rest or "#" in rest:
            raise MalformedReference(text, "? and # have no place in a reference")
        whole_name, at, digest = rest.partition("@")
        if "@" in digest or "/" in digest:
            raise MalformedReference(text, "an @ may only stand before a digest; passwords go in the credentials")
        registry, path = _split_registry(text, whole_name, bool(separator))
        repository, colon, tag = path.partition(":")
        implied_tag = None if at else DEFAULT_TAG
        repository = _in_registry(registry, repository if colon else repository.removesuffix("/"))
        try:
            return cls(
                scheme if separator else "https",
                registry,
                repository,
                tag if colon else implied_tag,
                Digest.parse(digest) if at else None,
            )
        except MalformedDigest as error:
            raise MalformedReference(text, str(error)) from error
        except MalformedReference as error:
            raise MalformedReference(text, error.reason) from error

    @property
    def is_wildcard(self) -> bool:
        """Does it stand for every tag that matches?"""
        return self.tag is not None and "*" in self.tag and _WILDCARD.fullmatch(self.tag) is not None

    @property
    def host(self) -> str:
        """Where the registry's API answers: host, or host:port."""
        return DOCKER_HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def base_url(self) -> str:
        """Where the registry answers, without a slash at the end."""
        return f"{self.scheme}://{self.host}"

    @property
    def locator(self) -> str:
        """What the registry is asked for: the digest if there is one, else the tag."""
        return str(self.digest or self.tag)

    @property
    def suffix(self) -> str:
        """`:tag`, `@digest` or `:tag@digest`."""
        return (f":{self.tag}" if self.tag is not None else "") + (f"@{self.digest}" if self.digest else "")

    def with_tag(self, tag: str) -> "Reference":
        """The same image name with another tag."""
        return replace(self, tag=tag)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.registry}/{self.repository}{self.suffix}"


def canonical_registry(name: str) -> str:
    """The one name that a registry has in references; only Docker Hub goes by several."""
    return DOCKER_HUB if name.lower() in _DOCKER_HUB_NAMES else name.lower()


def is_tag(text: str) -> bool:
    """Could a registry have a tag of that name?"""
    return _TAG.fullmatch(text) is not None


def shown(text: str) -> str:
    """*text*, whatever somebody wrote, fit for a message: one short line without passwords or queries."""
    text = _SECRETS.sub(lambda match: f"{match['scheme'] or ''}***@", text[:1000])
    text = text.partition("?")[0]
    return (text if text.isprintable() else ascii(text)[1:-1])[:200] or "(empty)"


def _split_registry(text: str, name: str, explicit: bool) -> tuple[str, str]:
    """The registry and the rest of *name*; *text* is the reference, *explicit* whether it has a scheme."""
    first, slash, rest = name.partition("/")
    if explicit or (slash and (first == "localhost" or "." in first or ":" in first)):
        if not slash:
            raise NoRegistry(text)
        return canonical_registry(first), rest
    if not name:
        raise MalformedReference(text, "no image: write name:tag or registry.example.org/name:tag")
    if _IMAGE_ID.fullmatch(name):
        raise MalformedReference(text, "an image id names no image of a registry: write name@sha256:…")
    return DOCKER_HUB, name


def _in_registry(registry: str, repository: str) -> str:
    if registry == DOCKER_HUB and "/" not in repository:
        return _OFFICIAL + repository
    return repository


def _registry_fault(registry: str) -> str | None:
    match = _REGISTRY.fullmatch(registry)
    if match is None:
        return "malformed registry: write host or host:port"
    if match["port"] and int(match["port"]) > 65535:
        return f"port {match['port']} does not exist"
    host = match["host"]
    if host.startswith("["):
        return None if _is_ipv6(host[1:-1]) else "malformed IPv6 address"
    if len(host) > MAX_HOST_LENGTH or not _HOST.fullmatch(host):
        return "malformed registry host: letters, digits and hyphens between dots"
    return None


def _repository_fault(repository: str) -> str | None:
    if len(repository) > MAX_REPOSITORY_LENGTH:
        return f"the name is longer than {MAX_REPOSITORY_LENGTH} characters"
    if repository != repository.lower():
        return "upper-case letters are not allowed in a name"
    if not _REPOSITORY.fullmatch(repository):
        return "malformed name: lower-case letters and digits between single . _ - or / (no .., no // )"
    return None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
