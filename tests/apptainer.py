"""Debian's apptainer, which is only in sid, in a root of its own; an image's directory appears by a bind mount."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests import sid
from tests.sid import USER


def exec(
    rootfs: Path | str | bytes,
    command: Sequence[str | Path],
    user: str = USER,
    options: Sequence[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """`apptainer exec DIRECTORY COMMAND…` as *user* (`tester` or `root`); exit status and both streams.

    *rootfs* may be a symlink, as the public paths of a repository are. *options* go between `exec` and it.
    """
    return apptainer("exec", rootfs, command, user, options)


def run(
    rootfs: Path | str | bytes, arguments: Sequence[str] = (), user: str = USER, options: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """`apptainer run`: the image's own entry point and command, by its runscript."""
    return apptainer("run", rootfs, arguments, user, options)


def apptainer(
    action: str,
    rootfs: Path | str | bytes,
    words: Sequence[str | Path] = (),
    user: str = USER,
    options: Sequence[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """Any of apptainer's actions on an image."""
    privileges = ["--userns"] if user == "root" and action != "inspect" else []
    command = ["apptainer", "--silent", action, *privileges, *options, "/mnt", *map(str, words)]
    return sid.enter(command, rootfs, user)
