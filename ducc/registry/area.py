"""What a credential, a mirror or a setting is for: a registry, or the images below one of its namespaces.

    host[:port][/namespace]

Docker Hub answers to several names; they are one registry here, whichever of them somebody wrote.
"""

from dataclasses import dataclass

from ducc.errors import BadInput
from ducc.image.reference import MalformedReference, Reference, canonical_registry

_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


class MalformedArea(BadInput):
    """A text does not name a registry or a namespace of one. What it says is left out: it may hold a password."""

    def __init__(self) -> None:
        super().__init__("write host, host:port or host/namespace")


@dataclass(frozen=True, slots=True, order=True)
class Area:
    """*registry* is host or host:port in its one spelling; without *namespace* all of its images are meant."""

    registry: str
    namespace: str = ""

    @classmethod
    def parse(cls, text: str) -> "Area":
        """Read `host[:port][/namespace]`."""
        registry, _, namespace = text.removesuffix("/").partition("/")
        try:
            reference = Reference("https", registry.lower(), namespace or "any", "any")
        except MalformedReference as error:
            raise MalformedArea from error
        return cls(known_as(reference.registry), namespace)

    def covers(self, reference: Reference) -> bool:
        """Is the image in it?"""
        return known_as(reference.registry, reference.scheme) == self.registry and self._inside(reference.repository)

    def below(self, repository: str) -> str:
        """What is left of an image's name, which is in the area, without the namespace."""
        return repository[len(self.namespace) :].removeprefix("/")

    def _inside(self, repository: str) -> bool:
        return not self.namespace or f"{repository}/".startswith(f"{self.namespace}/")

    def __str__(self) -> str:
        return f"{self.registry}/{self.namespace}" if self.namespace else self.registry


def known_as(registry: str, scheme: str = "https") -> str:
    """The one name of a registry that has several; the port that the scheme implies is left out."""
    return canonical_registry(registry.removesuffix(_DEFAULT_PORTS[scheme]))
