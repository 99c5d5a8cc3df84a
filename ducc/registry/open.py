"""From what an operator wrote to a registry client."""

from collections.abc import Mapping
from pathlib import Path

from ducc.registry.client import Registry
from ducc.registry.settings import RegistriesSettings


def open_registry(settings: Path | None, environ: Mapping[str, str]) -> Registry:
    """The client that the file *settings*, the environment and this user's logins make. Raises `BadInput`."""
    if settings is None:
        return Registry.from_settings(RegistriesSettings(), environ)
    from ducc.registry.settingsfile import read_settings  # who has no such file does not wait for YAML

    return Registry.from_settings(read_settings(settings), environ)
