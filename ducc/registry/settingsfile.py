"""`registries.yaml`: how each registry is to be asked. Strict: whatever is not understood is a fault with its line.

    credentials:
      hub-robot: {for: docker.io, user: robot, password_file: hub.password}
      lab: {for: registry.example.org/lab, token_file: /etc/ducc/lab.token}
    registries:
      docker.io:
        credentials: hub-robot
        mirrors: [{url: https://cache.example.org/hub, credentials: cache}]
        budget: {requests_per_second: 10, downloads: 4, bytes_per_second: 50000000}
      registry.example.org:
        ca_file: /etc/ducc/lab-ca.pem

`docs/registries.md` explains every key.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from ducc.errors import BadInput
from ducc.image.reference import shown
from ducc.reach import Reach
from ducc.registry.area import Area, MalformedArea
from ducc.registry.credentials import MalformedCredentials, SecretFile, read_secret, refuse_exposed
from ducc.registry.settings import AreaSettings, Budget, Mirror, RegistriesSettings, parse_mirror

MAX_SETTINGS_BYTES = 1024 * 1024

_FILES = ("ca_file", "client_cert", "client_key")
_TAG = "tag:yaml.org,2002:"


class MalformedSettings(BadInput):
    """`registries.yaml` can't be used. The text has one line for each fault."""


def read_settings(path: Path) -> RegistriesSettings:
    """Read `registries.yaml`. Raises `MalformedSettings`, also for files that it names and that can't be used.

    Paths in it are relative to its own directory.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o022:
                raise MalformedSettings(f"{path}: others may change it: chmod go-w it")
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        raise MalformedSettings(f"{path}: cannot be read: {error.strerror}") from error
    return _SettingsReader(path).read(data)


class _SettingsReader:
    """Takes the values out of the document and collects the faults, so that all are told at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults: list[tuple[int, str]] = []

    def read(self, data: bytes) -> RegistriesSettings:
        """Read the whole document."""
        parts = self._mapping(self._compose(data), {"credentials", "registries"})
        credentials = {
            name: secret
            for name, node in self._named(parts.get("credentials"))
            if (secret := self._credential(node)) is not None
        }
        areas: dict[Area, AreaSettings] = {}
        for name, node in self._named(parts.get("registries")):
            area = self._area(node, name)
            if area is not None and area in areas:
                self._fault(node, f"{area} stands here for the second time")
            elif area is not None:
                areas[area] = self._area_settings(node, area, credentials)
        if self._faults:
            raise MalformedSettings("\n".join(f"{self._path}:{line}: {text}" for line, text in sorted(self._faults)))
        return RegistriesSettings(areas, credentials)

    def _compose(self, data: bytes) -> yaml.Node | None:
        if len(data) > MAX_SETTINGS_BYTES:
            raise MalformedSettings(f"{self._path}: longer than {MAX_SETTINGS_BYTES} bytes")
        try:
            return yaml.compose(data, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{self._path}:{mark.line + 1}" if mark else str(self._path)
            raise MalformedSettings(f"{place}: not valid YAML") from error

    def _credential(self, node: yaml.Node) -> SecretFile | None:
        parts = self._mapping(node, {"for", "user", "password_file", "token_file"})
        area = self._area(node, self._text(parts.get("for")))
        username = self._text(parts.get("user"))
        password, token = self._file(parts.get("password_file")), self._file(parts.get("token_file"))
        path = password or token
        if path is None or bool(password) == bool(token) or bool(username) != bool(password) or ":" in username:
            self._fault(node, "write either user and password_file, or token_file; a user name has no colon")
            return None
        try:
            read_secret(path)
        except MalformedCredentials as error:
            self._fault(node, str(error))
        return SecretFile(area, username, path) if area else None

    def _area_settings(self, node: yaml.Node, area: Area, known: Mapping[str, SecretFile]) -> AreaSettings:
        everywhere, whole = {"mirrors", "credentials"}, {"insecure", "token_servers", "timeouts", "budget", *_FILES}
        parts = self._mapping(node, everywhere | whole)
        if area.namespace and whole & parts.keys():
            self._fault(node, f"{', '.join(sorted(whole & parts.keys()))}: set it for {area.registry} as a whole")
        insecure = self._flag(parts.get("insecure"))
        return AreaSettings(
            tuple(mirror for one in self._list(parts.get("mirrors")) if (mirror := self._mirror(one, known))),
            self._name(parts.get("credentials"), known),
            insecure,
            tuple(self._text(host).lower() for host in self._list(parts.get("token_servers"))),
            self._reach(node, parts, insecure),
            self._budget(parts.get("budget")),
        )

    def _mirror(self, node: yaml.Node, known: Mapping[str, SecretFile]) -> Mirror | None:
        parts = self._mapping(node, {"url", "credentials", "lists_tags"})
        try:
            mirror = parse_mirror(self._text(parts.get("url")))
        except MalformedArea:
            self._fault(node, "the url of a mirror is https://host[:port][/namespace]")
            return None
        return replace(
            mirror,
            credentials=self._name(parts.get("credentials"), known),
            lists_tags=self._flag(parts.get("lists_tags")),
        )

    def _reach(self, node: yaml.Node, parts: Mapping[str, yaml.Node], insecure: bool) -> Reach:
        seconds = {"connect_seconds", "first_byte_seconds", "idle_seconds", "minimum_bytes_per_second"}
        timeouts = self._mapping(parts.get("timeouts"), seconds)
        values = {name: value for name, one in timeouts.items() if (value := self._number(one)) is not None}
        files = {name: self._file(parts.get(name)) for name in _FILES}
        reach = Reach(**values, **files, verify=not insecure)  # type: ignore[arg-type]
        try:
            reach.check()
        except (OSError, ssl.SSLError) as error:
            self._fault(node, f"ca_file, client_cert or client_key can't be used: {error.strerror or 'malformed'}")
        if reach.client_key is not None and reach.client_key.exists():
            self._refuse_exposed(node, reach.client_key)
        return reach

    def _refuse_exposed(self, node: yaml.Node, path: Path) -> None:
        try:
            refuse_exposed(path, path.stat().st_mode)
        except MalformedCredentials as error:
            self._fault(node, str(error))

    def _budget(self, node: yaml.Node | None) -> Budget:
        parts = self._mapping(node, {"requests_per_second", "downloads", "bytes_per_second"})
        downloads = self._number(parts.get("downloads"))
        if downloads is not None and node is not None and downloads != int(downloads):
            self._fault(node, "downloads must be a whole number")
        return Budget(
            self._number(parts.get("requests_per_second")),
            None if downloads is None else max(1, int(downloads)),
            self._number(parts.get("bytes_per_second")),
        )

    def _area(self, node: yaml.Node, text: str) -> Area | None:
        try:
            return Area.parse(text)
        except MalformedArea as error:
            self._fault(node, f"{shown(text)}: {error}")
            return None

    def _name(self, node: yaml.Node | None, known: Mapping[str, SecretFile]) -> str | None:
        if node is None:
            return None
        name = self._text(node)
        if name not in known:
            self._fault(node, f"no credentials are called {ascii(name)[:60]}")
        return name

    def _named(self, node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
        yield from self._mapping(node, None).items()

    def _mapping(self, node: yaml.Node | None, allowed: set[str] | None) -> dict[str, yaml.Node]:
        """The values by key. Keys that are not *allowed*, and all but the first of equal keys, are faults."""
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"):
            return {}
        if not isinstance(node, yaml.MappingNode) or node.tag != f"{_TAG}map":
            self._fault(node, "a mapping of keys to values is expected here")
            return {}
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self._text(key)
            if allowed is not None and name not in allowed:
                self._fault(key, f"unknown key {ascii(name)[:60]}: there is {', '.join(sorted(allowed))}")
            elif name in fields:
                self._fault(key, f"the key {ascii(name)[:60]} stands here for the second time")
            else:
                fields[name] = value
        return fields

    def _list(self, node: yaml.Node | None) -> list[yaml.Node]:
        if node is None:
            return []
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        self._fault(node, "a list is expected here")
        return []

    def _text(self, node: yaml.Node | None) -> str:
        if node is None:
            return ""
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}str":
            self._fault(node, "a string is expected here: write it in quotes")
            return ""
        return str(node.value)

    def _file(self, node: yaml.Node | None) -> Path | None:
        text = self._text(node)
        return self._path.parent / text if text else None

    def _flag(self, node: yaml.Node | None) -> bool:
        if node is not None and (node.tag != f"{_TAG}bool" or node.value not in ("true", "false")):
            self._fault(node, "true or false is expected here")
        return node is not None and node.value == "true"

    def _number(self, node: yaml.Node | None) -> float | None:
        if node is None:
            return None
        try:
            value = float(node.value) if node.tag in (f"{_TAG}int", f"{_TAG}float") else 0.0
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            self._fault(node, "a number greater than 0 is expected here")
            return None
        return value

    def _fault(self, node: yaml.Node, text: str) -> None:
        self._faults.append((node.start_mark.line + 1, text))
