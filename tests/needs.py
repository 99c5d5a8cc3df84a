"""What a test needs of the machine, and the skip that says how to install it.

Nothing here runs at import: a test that lacks a program is skipped with the command that brings it.
"""

import os
import shutil

import pytest

PACKAGE_OF = {
    "attr": "attr",
    "busybox": "busybox-static",
    "cvmfs2": "cvmfs",
    "debootstrap": "debootstrap",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "fuse-overlayfs": "fuse-overlayfs",
    "fusermount3": "fuse3",
    "man": "man-db",
    "newuidmap": "uidmap",
    "podman": "podman",
    "setcap": "libcap2-bin",
    "skopeo": "skopeo",
    "squid": "squid",
    "systemd-analyze": "systemd",
    "umoci": "umoci",
}


def need_program(name: str) -> str:
    """The program's path; skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {PACKAGE_OF.get(name, name)}")
    return found


def need_root() -> None:
    """Device nodes, owners and mounts of whole root file systems need root."""
    if os.geteuid() != 0:
        pytest.skip("not root: run the tests by sudo")


def need_fuse() -> None:
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("/dev/fuse cannot be opened: modprobe fuse, or give the container --device /dev/fuse")
    need_program("fusermount3")
