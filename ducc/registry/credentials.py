"""Credentials: who we are to which registry.

Each is for one registry, or for one namespace of it, and is never considered for another. Where several are meant for
an image, the one for the closest namespace wins, then the source that comes first. Secrets stand in no repr.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ducc.errors import BadInput, DuccError
from ducc.image.reference import Reference
from ducc.registry.area import Area, MalformedArea, known_as
from ducc.urls import is_this_machine, origin

MAX_SECRET_BYTES = 64 * 1024


class AccessDenied(DuccError):
    """The registry does not let us in, with the credentials there are or without any."""

    exit_code = 84


class MalformedCredentials(BadInput):
    """Credentials in the settings that can't be used as they are."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password for one registry, or only for the image names below *namespace*.

    It is used over https; over http only on this machine or when *scheme* says so. With *is_identity_token* the
    password is a refresh token, which only a token server takes.
    """

    registry: str  # host or host:port
    username: str = field(repr=False)
    password: str = field(repr=False)
    namespace: str = ""
    scheme: str = "https"
    is_identity_token: bool = False

    def covers(self, reference: Reference) -> bool:
        """Is it meant for that image?"""
        encrypted = reference.scheme in ("https", self.scheme) or is_this_machine(origin(reference.base_url)[1])
        return encrypted and Area(known_as(self.registry), self.namespace).covers(reference)


class Source(Protocol):
    """Somewhere credentials are kept."""

    def for_image(self, reference: Reference) -> Credential | None:
        """The closest one that is meant for that image. Raises `MalformedCredentials`."""


class Credentials:
    """Credentials as values."""

    def __init__(self, entries: Iterable[Credential] = ()) -> None:
        self._entries = sorted(entries, key=lambda entry: len(entry.namespace), reverse=True)

    def for_image(self, reference: Reference) -> Credential | None:
        """The closest one that is meant for that image."""
        return next((entry for entry in self._entries if entry.covers(reference)), None)


@dataclass(frozen=True, slots=True)
class Sources:
    """Several sources, the most important first; the closest namespace wins over the order."""

    sources: Sequence[Source]

    def for_image(self, reference: Reference) -> Credential | None:
        """The closest one that is meant for that image. Raises `MalformedCredentials`."""
        found = [credential for source in self.sources if (credential := source.for_image(reference))]
        return max(found, key=lambda credential: len(credential.namespace), default=None)


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A credential whose secret lies in a file of its own, read anew each time: it may be exchanged.

    Without *username* the file holds an identity token.
    """

    area: Area
    username: str = field(repr=False)
    path: Path
    scheme: str = "https"

    def for_image(self, reference: Reference) -> Credential | None:
        """The credential, if it is meant for that image. Raises `MalformedCredentials`."""
        credential = self._with("")
        return self._with(read_secret(self.path)) if credential.covers(reference) else None

    def _with(self, secret: str) -> Credential:
        return Credential(
            self.area.registry, self.username, secret, self.area.namespace, self.scheme, not self.username
        )


@dataclass(frozen=True, slots=True)
class Named:
    """The credential of that name and no other. Whoever wrote the name can't send it where it is not meant for."""

    name: str
    source: Source

    def for_image(self, reference: Reference) -> Credential:
        """The credential. Raises `AccessDenied` when it is for another place, `MalformedCredentials`."""
        credential = self.source.for_image(reference)
        if credential is None:
            raise AccessDenied(f"{reference}: the credentials {self.name!r} are not meant for it")
        return credential


def read_secret(path: Path) -> str:
    """The one line of a file that nobody but its owner may use. Raises `MalformedCredentials`."""
    try:
        with path.open("rb") as file:
            refuse_exposed(path, os.fstat(file.fileno()).st_mode)
            text = file.read(MAX_SECRET_BYTES + 1).decode()
    except OSError as error:
        raise MalformedCredentials(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise MalformedCredentials(f"{path}: not UTF-8") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret or not secret.isprintable() or len(text) > MAX_SECRET_BYTES:
        raise MalformedCredentials(f"{path}: must hold one line, the secret")
    return secret


def refuse_exposed(path: Path, mode: int) -> None:
    """Raise `MalformedCredentials` when others than its owner may read or change a file of that mode."""
    if mode & 0o077:
        raise MalformedCredentials(f"{path}: others may use it (mode {stat.S_IMODE(mode):04o}): chmod 600 it")


@dataclass(frozen=True, slots=True)
class EnvironmentEntry:
    """What the Go program's variables say about one registry. *proxy* stands in for it, without its credentials."""

    area: Area
    credential: Credential | None
    proxy: str = ""


def credentials_from_environment(environ: Mapping[str, str]) -> Credentials:
    """The credentials among the variables of the Go program. Raises `MalformedCredentials`."""
    return Credentials([entry.credential for entry in read_environment(environ) if entry.credential])


def read_environment(environ: Mapping[str, str]) -> list[EnvironmentEntry]:
    """Read the variables of the Go program: `DUCC_AUTH_REGISTRIES=A,B`, `DUCC_A_IDENT`, `_USER`, `_PASS`, `_PROXY`.

    IDENT is `[scheme://]host[:port][/namespace]` and compared as such, not searched for in the whole URL. Raises
    `MalformedCredentials`.
    """
    names = [name.strip() for name in environ.get("DUCC_AUTH_REGISTRIES", "").split(",")]
    return [_entry(name, environ) for name in names if name]


def _entry(name: str, environ: Mapping[str, str]) -> EnvironmentEntry:
    ident, username, password, proxy = (
        environ.get(f"DUCC_{name}_{part}", "") for part in ("IDENT", "USER", "PASS", "PROXY")
    )
    if not ident or bool(username) != bool(password) or not (username or proxy):
        wanted = f"DUCC_{name}_IDENT, and _USER and _PASS, or _PROXY"
        raise MalformedCredentials(f"DUCC_AUTH_REGISTRIES names {name}: set {wanted}")
    if ":" in username:
        raise MalformedCredentials(f"DUCC_{name}_USER: a user name has no colon")
    scheme, separator, place = ident.rpartition("://")
    scheme = scheme if separator else "https"
    try:
        area = Area.parse(place.strip("/"))
        if scheme not in ("https", "http"):
            raise MalformedArea
    except MalformedArea as error:
        raise MalformedCredentials(f"DUCC_{name}_IDENT: {error}") from error
    credential = Credential(area.registry, username, password, area.namespace, scheme) if username else None
    return EnvironmentEntry(area, credential, proxy)
