"""What an operator writes: a TOML file, and options that win over it.

repository = "unpacked.cern.ch"                  one repository, as files for the CernVM-FS plugin say it
absolute-mountpoint = "/cvmfs/unpacked.cern.ch"

[[repositories]]                                 or several, the preferred one first
name = "unpacked.cern.ch"
mountpoint = "/cvmfs/unpacked.cern.ch"
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ducc.errors import BadInput
from ducc.rootfs.locate import MountedRepository
from ducc.rootfs.overlay import require_mountable

DEFAULT_CONFIG = Path("/etc/ducc/snapshotter.toml")
DEFAULT_ADDRESS = Path("/run/ducc-snapshotter/snapshotter.sock")
DEFAULT_ROOT = Path("/var/lib/ducc-snapshotter")
LOG_LEVELS = {"error": 0, "warning": 0, "warn": 0, "info": 1, "debug": 2, "trace": 2}

_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_LONGEST_DEADLINE = 600  # seconds
_LONGEST_ADDRESS = 100  # bytes; the kernel takes 107, and the inner socket's name is longer by a few


@dataclass(frozen=True, slots=True)
class Settings:
    """*deadline_seconds*: how long one repository may take to say whether it has a layer."""

    repositories: tuple[MountedRepository, ...]
    address: Path = DEFAULT_ADDRESS
    root: Path = DEFAULT_ROOT
    log_level: str = "info"
    log_json: bool = False
    metrics_file: Path | None = None
    deadline_seconds: float = 10.0


def read_settings(path: Path, options: Mapping[str, str | None]) -> Settings:
    """What the file and the options (by their names in the file; `None` where not given) say. Raises `BadInput`."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: can't be used as configuration: {' '.join(str(error).split())}") from error
    try:
        return _settings(values | {name: value for name, value in options.items() if value is not None})
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _settings(values: dict[str, Any]) -> Settings:
    settings = Settings(
        repositories=_repositories(values),
        address=_address(values.pop("address", str(DEFAULT_ADDRESS))),
        root=require_mountable(Path(_text(values, "root", str(DEFAULT_ROOT)))),
        log_level=_log_level(_text(values, "log-level", "info")),
        log_json=_of_type(values, "log-json", bool, False),
        metrics_file=_path_or_none(_text(values, "metrics-file", "")),
        deadline_seconds=float(_of_type(values, "deadline-seconds", (int, float), 10.0)),
    )
    if values:
        raise BadInput(f"{', '.join(sorted(values))}: no such setting")
    if not 0 < settings.deadline_seconds <= _LONGEST_DEADLINE:
        raise BadInput(f"deadline-seconds: wanted a number above 0, {_LONGEST_DEADLINE} at most")
    return settings


def _repositories(values: dict[str, Any]) -> tuple[MountedRepository, ...]:
    several = _of_type(values, "repositories", list, [])
    if "repository" in values or "absolute-mountpoint" in values:
        if several:
            raise BadInput("repository: either this or [[repositories]], not both")
        name = _text(values, "repository", "unpacked.cern.ch")
        several = [{"name": name, "mountpoint": _text(values, "absolute-mountpoint", f"/cvmfs/{name}")}]
    if not several:
        raise BadInput("whose layers? wanted: repository, or [[repositories]] with name and mountpoint")
    found = tuple(map(_repository, several))
    if len({repository.mountpoint for repository in found}) < len(found):
        raise BadInput("repositories: two have the same mountpoint")
    return found


def _repository(value: Any) -> MountedRepository:
    if not isinstance(value, dict) or not set(value) <= {"name", "mountpoint"} or "name" not in value:
        raise BadInput("repositories: wanted of each name and mountpoint, and nothing else")
    name = _text(dict(value), "name", "")
    if not _NAME.fullmatch(name):
        raise BadInput(f"repository {name[:100]!a}: that is no name of a repository")
    mountpoint = _text(dict(value), "mountpoint", f"/cvmfs/{name}")
    return MountedRepository(name, require_mountable(Path(mountpoint)))


def _address(value: Any) -> Path:
    path = Path(str(value).removeprefix("unix://"))
    if not path.is_absolute() or len(str(path).encode()) > _LONGEST_ADDRESS:
        raise BadInput(
            f"address {str(value)!r}: wanted the absolute path of a socket, {_LONGEST_ADDRESS} bytes at most"
        )
    return path


def _log_level(name: str) -> str:
    if name not in LOG_LEVELS:
        raise BadInput(f"log-level {name!r}: wanted one of {', '.join(LOG_LEVELS)}")
    return name


def _path_or_none(text: str) -> Path | None:
    return Path(text) if text else None


def _text(values: dict[str, Any], name: str, default: str) -> str:
    return str(_of_type(values, name, str, default))


def _of_type(values: dict[str, Any], name: str, wanted: type | tuple[type, ...], default: Any) -> Any:
    """Take the setting out of *values*."""
    value = values.pop(name, default)
    if not isinstance(value, wanted):
        raise BadInput(f"{name}: {ascii(value)[:100]} is not of the right type")
    return value
