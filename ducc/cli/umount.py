"""Take a mounted repository away, and wait until the process behind it has ended, or is still needed elsewhere."""

import argparse
import os
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="where a repository is mounted")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 nothing is mounted there any more, 2 nothing of ours was, else it is still mounted."""
    from ducc.client import autofs, automount
    from ducc.client.mountpoint import MOUNT_TYPE, mounted_at, unmount
    from ducc.errors import BadInput

    directory = Path(os.path.realpath(arguments.directory))
    entry = mounted_at(directory)
    if entry is not None and (entry.type, entry.source) == (autofs.TYPE, autofs.SOURCE):
        automount.end(directory)
        return 0
    if entry is None or entry.type != MOUNT_TYPE:
        raise BadInput(f"no repository is mounted at {directory}")
    if not unmount(directory):
        print(f"{directory} is unmounted; overlays or other mount namespaces still use it", file=sys.stderr)
    return 0
