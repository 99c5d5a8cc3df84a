"""What operators write for every engine: a TOML file that names the repositories whose layers may be used.

repository = "unpacked.cern.ch"                  one repository, as files for the CernVM-FS plugin say it
absolute-mountpoint = "/cvmfs/unpacked.cern.ch"

[[repositories]]                                 or several, the preferred one first
name = "unpacked.cern.ch"
mountpoint = "/cvmfs/unpacked.cern.ch"

mountpoint-without-xattrs = "…"                  of either, if it is mounted a second time by `ducc mount --no-xattrs`

Each function takes its settings out of the values that were read; what is left at the end is no setting.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ducc.errors import BadInput
from ducc.rootfs.locate import MountedRepository
from ducc.rootfs.overlay import require_mountable
from ducc.rootfs.second_mount import SecondMount

LOG_LEVELS = {"error": 0, "warning": 0, "warn": 0, "info": 1, "debug": 2, "trace": 2}

_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_LONGEST_DEADLINE = 600  # seconds
_SECOND = "mountpoint-without-xattrs"
_LONGEST_ADDRESS = 100  # bytes; the kernel takes 107, and some put a second socket beside it

Settings = TypeVar("Settings")


def read(path: Path, options: Mapping[str, str | None], meaning: Callable[[dict[str, Any]], Settings]) -> Settings:
    """What *meaning* makes of the file and of the options (by their names in the file; `None` where not given).

    Raises `BadInput`, also if *meaning* leaves a value unused.
    """
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: can't be used as configuration: {' '.join(str(error).split())}") from error
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        settings = meaning(values)
        if values:
            raise BadInput(f"{', '.join(sorted(values))}: no such setting")
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    return settings


def deadline_seconds(values: dict[str, Any]) -> float:
    """How long one repository may take to say whether it has a layer."""
    seconds = float(of_type(values, "deadline-seconds", (int, float), 10.0))
    if not 0 < seconds <= _LONGEST_DEADLINE:
        raise BadInput(f"deadline-seconds: wanted a number above 0, {_LONGEST_DEADLINE} at most")
    return seconds


def repositories(values: dict[str, Any]) -> tuple[MountedRepository, ...]:
    several = of_type(values, "repositories", list, [])
    if "repository" in values or "absolute-mountpoint" in values:
        if several:
            raise BadInput("repository: either this or [[repositories]], not both")
        name = text(values, "repository", "unpacked.cern.ch")
        several = [{"name": name, "mountpoint": text(values, "absolute-mountpoint", f"/cvmfs/{name}")}]
        several[0] |= {_SECOND: values.pop(_SECOND)} if _SECOND in values else {}
    if not several:
        raise BadInput("whose layers? wanted: repository, or [[repositories]] with name and mountpoint")
    found = tuple(map(_repository, several))
    places = [place for one in found for place in (one.mountpoint, one.second and one.second.mountpoint) if place]
    if len(set(places)) < len(places):
        raise BadInput("repositories: two have the same mountpoint")
    return found


def _repository(value: Any) -> MountedRepository:
    if not isinstance(value, dict) or not set(value) <= {"name", "mountpoint", _SECOND} or "name" not in value:
        raise BadInput(f"repositories: wanted of each name, mountpoint and {_SECOND}, and nothing else")
    name = text(dict(value), "name", "")
    if not _NAME.fullmatch(name):
        raise BadInput(f"repository {name[:100]!a}: that is no name of a repository")
    mountpoint = require_mountable(Path(text(dict(value), "mountpoint", f"/cvmfs/{name}")))
    second = text(dict(value), _SECOND, "")
    return MountedRepository(name, mountpoint, SecondMount(name, require_mountable(Path(second))) if second else None)


def address(values: dict[str, Any], default: Path) -> Path:
    """Where the engine finds us."""
    value = values.pop("address", str(default))
    path = Path(str(value).removeprefix("unix://"))
    if not path.is_absolute() or len(str(path).encode()) > _LONGEST_ADDRESS:
        raise BadInput(
            f"address {str(value)!r}: wanted the absolute path of a socket, {_LONGEST_ADDRESS} bytes at most"
        )
    return path


def log_level(values: dict[str, Any]) -> str:
    name = text(values, "log-level", "info")
    if name not in LOG_LEVELS:
        raise BadInput(f"log-level {name!r}: wanted one of {', '.join(LOG_LEVELS)}")
    return name


def text(values: dict[str, Any], name: str, default: str) -> str:
    return str(of_type(values, name, str, default))


def of_type(values: dict[str, Any], name: str, wanted: type | tuple[type, ...], default: Any) -> Any:
    """Take the setting out of *values*."""
    value = values.pop(name, default)
    if not isinstance(value, wanted):
        raise BadInput(f"{name}: {ascii(value)[:100]} is not of the right type")
    return value
