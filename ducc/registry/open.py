"""From what an operator wrote to a registry client."""

from collections.abc import Mapping
from pathlib import Path

from ducc.registry.client import Registry
from ducc.registry.settings import RegistriesSettings
from ducc.registry.settingsfile import read_settings


def open_registry(settings: Path | None, environ: Mapping[str, str]) -> Registry:
    """The client that the file *settings*, the environment and this user's logins make. Raises `BadInput`."""
    return Registry.from_settings(read_settings(settings) if settings else RegistriesSettings(), environ)
