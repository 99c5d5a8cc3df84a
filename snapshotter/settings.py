"""What an operator writes: a TOML file (see `ducc.rootfs.settings`), and options that win over it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ducc.rootfs import settings
from ducc.rootfs.locate import MountedRepository
from ducc.rootfs.overlay import require_mountable

DEFAULT_CONFIG = Path("/etc/ducc/snapshotter.toml")
DEFAULT_ADDRESS = Path("/run/ducc-snapshotter/snapshotter.sock")
DEFAULT_ROOT = Path("/var/lib/ducc-snapshotter")


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
    return settings.read(path, options, _settings)


def _settings(values: dict[str, Any]) -> Settings:
    metrics_file = settings.text(values, "metrics-file", "")
    return Settings(
        repositories=settings.repositories(values),
        address=settings.address(values, DEFAULT_ADDRESS),
        root=require_mountable(Path(settings.text(values, "root", str(DEFAULT_ROOT)))),
        log_level=settings.log_level(values),
        log_json=settings.of_type(values, "log-json", bool, False),
        metrics_file=Path(metrics_file) if metrics_file else None,
        deadline_seconds=settings.deadline_seconds(values),
    )
