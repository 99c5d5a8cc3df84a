"""How each registry is to be asked, as plain data without secrets.

Secrets are read from their files when somebody asks for them, so the settings may be sent to other processes.
`settingsfile` reads them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ducc.image.reference import Reference
from ducc.reach import Reach
from ducc.registry.area import Area, MalformedArea, known_as
from ducc.registry.credentials import (
    MalformedCredentials,
    Named,
    SecretFile,
    read_environment,
)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that is asked of one registry by all threads together; None is no limit."""

    requests_per_second: float | None = None
    downloads: int | None = None  # of blobs, at the same time
    bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """Stands in for an area: what follows the area's namespace in an image's name follows the mirror's."""

    scheme: str
    area: Area
    credentials: str | None = None
    lists_tags: bool = False  # as completely as the registry itself

    def reference(self, area: Area, reference: Reference) -> Reference:
        """Where the mirror has an image of the *area*."""
        name = "/".join(filter(None, (self.area.namespace, area.below(reference.repository))))
        return Reference(self.scheme, self.area.registry, name, reference.tag, reference.digest)


@dataclass(frozen=True, slots=True)
class AreaSettings:
    """What is set for one registry or namespace. The later fields are for whole registries only."""

    mirrors: tuple[Mirror, ...] = ()
    credentials: str | None = None
    insecure: bool = False
    token_servers: tuple[str, ...] = ()  # hosts that its challenges may name though their addresses are private
    reach: Reach = field(default_factory=Reach)
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True)
class RegistriesSettings:
    """All that is set: for areas, and the credentials by name."""

    areas: Mapping[Area, AreaSettings] = field(default_factory=dict)
    credentials: Mapping[str, SecretFile] = field(default_factory=dict)

    def of_registry(self, registry: str, scheme: str = "https") -> AreaSettings:
        """What is set for a registry as a whole."""
        return self.areas.get(Area(known_as(registry, scheme)), AreaSettings())

    def closest(self, reference: Reference, told: Callable[[AreaSettings], object]) -> tuple[Area, AreaSettings] | None:
        """The narrowest area with the image for which something is *told*."""
        found = [(area, at) for area, at in self.areas.items() if area.covers(reference) and told(at)]
        return max(found, key=lambda entry: len(entry[0].namespace), default=None)

    def named(self, name: str) -> Named:
        """The credential of that name. Raises `MalformedCredentials`."""
        if name not in self.credentials:
            raise MalformedCredentials(f"no credentials are called {ascii(name)[:60]}: see registries.yaml")
        secret = self.credentials[name]
        insecure = self.of_registry(secret.area.registry).insecure
        return Named(name, replace(secret, scheme="http" if insecure else "https"))

    def with_proxies(self, environ: Mapping[str, str]) -> "RegistriesSettings":
        """The same, and as mirrors what the Go program's variables call proxies. Raises `MalformedCredentials`."""
        areas = dict(self.areas)
        for entry in read_environment(environ):
            known = areas.get(entry.area, AreaSettings())
            if entry.proxy and not known.mirrors:
                areas[entry.area] = replace(known, mirrors=(_proxy(entry.proxy),))
        return replace(self, areas=areas)


def _proxy(text: str) -> Mirror:
    try:
        return replace(parse_mirror(text if "://" in text else f"https://{text}"), lists_tags=True)
    except MalformedArea as error:
        raise MalformedCredentials(f"DUCC_AUTH_REGISTRIES: a proxy can't be used: {error}") from error


def parse_mirror(url: str) -> Mirror:
    """Read `https://host[:port][/namespace]`. Raises `MalformedArea`."""
    scheme, _, place = url.partition("://")
    if scheme not in ("https", "http"):
        raise MalformedArea
    return Mirror(scheme, Area.parse(place))
