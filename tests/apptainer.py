"""Debian's apptainer, which is only in sid: a sid root of its own, entered for one command at a time.

Inside the root the image's directory appears by a bind mount, so `exec` works for a plain directory and for a
directory of a FUSE mount (which must allow other users, if an ordinary user is to run it). Mounts are made in a
namespace that ends with the command; plain chroot would not do, apptainer needs `/` to be a mount point.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.images.debian import KEYRING, bootstrap, install, quietly
from tests.images.workshop import locked
from tests.needs import need_program, need_root

CACHE = Path(__file__).parents[1] / ".cache" / "sid"
DEBIAN = Path(__file__).parent / "images" / "debian.py"
PACKAGES = ("apptainer", "ca-certificates")
USER = "tester"  # an ordinary user inside the root
TIMEOUT_SECONDS = 300

ENTER = """
set -e
root=$1; image=$2; user=$3; shift 3
mount --bind "$root" "$root"
for tree in proc sys dev; do
    mount --rbind "/$tree" "$root/$tree"
    mount --make-rprivate "$root/$tree"
done
for scratch in run tmp home var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$scratch"; done
mkdir -p "$root/home/tester"
chown 1000:1000 "$root/home/tester"
mount --bind "$image" "$root/mnt"
cd "$root"
pivot_root . .
umount --lazy .
mount --make-rshared /
cd /
if [ "$user" = root ]; then exec "$@"; fi
exec setpriv --reuid "$user" --regid "$user" --init-groups --reset-env "$@"
"""


def sid_root() -> Path:
    """The root with apptainer in it, from the cache or newly made (a minute or two)."""
    need_root()
    need_program("debootstrap")
    root = CACHE / _key()
    with locked(CACHE):
        if not root.exists():
            for outdated in filter(Path.is_dir, CACHE.iterdir()):
                shutil.rmtree(outdated)
            _make(root)
    return root


def _make(root: Path) -> None:
    """Complete or absent: a root that was cut while it was made is made again."""
    part = CACHE / "part"
    part.mkdir()
    if not Path(KEYRING).exists():
        pytest.skip("no Debian keyring: apt-get install debian-archive-keyring")
    try:
        bootstrap(part, "sid")
        install(part, *PACKAGES, suite="sid")
    except RuntimeError as refused:
        pytest.skip(f"no Debian sid with apptainer: the machine's mirror must have the suite sid: {refused}")
    quietly("chroot", str(part), "useradd", "--uid", "1000", USER)
    (part / "etc" / "hosts").write_text("127.0.0.1 localhost\n")  # apptainer binds the host's
    part.rename(root)


def _key() -> str:
    sources = (Path(__file__), DEBIAN)
    return hashlib.sha256(b"".join(map(Path.read_bytes, sources))).hexdigest()[:12]


def exec(
    rootfs: Path | str | bytes,
    command: Sequence[str | Path],
    user: str = USER,
    options: Sequence[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """`apptainer exec DIRECTORY COMMAND…` as *user* (`tester` or `root`); exit status and both streams.

    *rootfs* may be a symlink, as the public paths of a repository are. *options* go between `exec` and it.
    """
    return _apptainer("exec", rootfs, command, user, options)


def run(
    rootfs: Path | str | bytes, arguments: Sequence[str] = (), user: str = USER, options: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """`apptainer run`: the image's own entry point and command, by its runscript."""
    return _apptainer("run", rootfs, arguments, user, options)


def _apptainer(
    action: str, rootfs: Path | str | bytes, words: Sequence[str | Path], user: str, options: Sequence[str]
) -> "subprocess.CompletedProcess[str]":
    privileges = ["--userns"] if user == "root" else []
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "apptainer"]
    place = [str(sid_root()), os.path.realpath(os.fsdecode(rootfs)), user]
    return subprocess.run(
        [*enter, *place, "apptainer", "--silent", action, *privileges, *options, "/mnt", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=TIMEOUT_SECONDS,
    )
