"""Which Docker can use a graph-driver plugin, and what the others are to use."""

import re
import shutil
import subprocess

_OLDEST, _DEPRECATING, _REMOVED = (20, 10), (27, 0), (28, 0)
_SECONDS = 10


def advice(version: str) -> str | None:
    """What the operator of a Docker with this *version* text should know; nothing if all is well."""
    match = re.search(r"(\d+)\.(\d+)", version)
    if match is None:
        return None
    found = (int(match[1]), int(match[2]))
    if found >= _REMOVED:
        return f"Docker {match[0]} has no graph-driver plugins: use its containerd image store and ducc-snapshotter"
    if found >= _DEPRECATING:
        return f"Docker {match[0]} takes graph-driver plugins only with DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS=1"
    if found < _OLDEST:
        return f"Docker {match[0]} is older than any that was tried: 20.10 to 27 can use ducc-graphdriver"
    return None


def installed() -> str:
    """What the daemon that is installed here says of itself; empty if there is none to be asked."""
    program = shutil.which("dockerd", path="/usr/bin:/usr/sbin:/usr/local/bin")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
