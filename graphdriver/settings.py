"""What an operator writes: a TOML file (see `ducc.rootfs.settings`), and options that win over it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ducc.rootfs import settings
from ducc.rootfs.locate import MountedRepository

DEFAULT_CONFIG = Path("/etc/ducc/graphdriver.toml")
DEFAULT_ADDRESS = Path("/run/docker/plugins/ducc-graphdriver.sock")  # its name is that of Docker's storage driver
DEFAULT_STATE = Path("/var/lib/ducc-graphdriver")


@dataclass(frozen=True, slots=True)
class Settings:
    """*state*: where it is noted which directory Docker uses. *deadline_seconds*: how long a repository may think."""

    repositories: tuple[MountedRepository, ...]
    address: Path = DEFAULT_ADDRESS
    state: Path = DEFAULT_STATE
    log_level: str = "info"
    log_json: bool = False
    deadline_seconds: float = 10.0


def read_settings(path: Path, options: Mapping[str, str | None]) -> Settings:
    """What the file and the options (by their names in the file; `None` where not given) say. Raises `BadInput`."""
    return settings.read(path, options, _settings)


def _settings(values: dict[str, Any]) -> Settings:
    return Settings(
        repositories=settings.repositories(values),
        address=settings.address(values, DEFAULT_ADDRESS),
        state=Path(settings.text(values, "state", str(DEFAULT_STATE))),
        log_level=settings.log_level(values),
        log_json=settings.of_type(values, "log-json", bool, False),
        deadline_seconds=settings.deadline_seconds(values),
    )
