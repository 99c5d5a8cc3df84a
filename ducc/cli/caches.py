"""Where programs keep what they can get again. Light: a mount keeps in memory what it once imported."""

import os
from pathlib import Path

from ducc.errors import BadInput


class NoHome(BadInput):
    """Nobody has said where caches lie, and the user has no home directory."""

    def __init__(self) -> None:
        super().__init__("this user has no home directory: name one for caches by --cache (for a daemon, also --state)")


def default_cache() -> Path:
    """Where caches lie unless told otherwise. Raises `NoHome`."""
    if os.geteuid() == 0:
        return Path("/var/cache/ducc")
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ducc"
    except RuntimeError:
        raise NoHome from None
