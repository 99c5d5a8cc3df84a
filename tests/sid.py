"""Debian sid in a root of its own, for engines that are newer than the machine's: entered for one command at a time.

Inside, *image* appears at /mnt and *scratch* at /srv by bind mounts, so that an engine finds a plain directory or one
of a FUSE mount (which must allow other users, if an ordinary user is to read it). Mounts are made in a namespace that
ends with the command; plain chroot would not do, engines need `/` to be a mount point.
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
PACKAGES = ("apptainer", "ca-certificates", "catatonit", "fuse-overlayfs", "podman", "runc", "uidmap")
USER = "tester"  # an ordinary user inside the root
UID = 1000
TIMEOUT_SECONDS = 300

ENTER = """
set -e
root=$1; image=$2; scratch=$3; user=$4; shift 4
mount --bind "$root" "$root"
for tree in proc sys dev; do
    mount --rbind "/$tree" "$root/$tree"
    mount --make-rprivate "$root/$tree"
done
for empty in run tmp home var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$empty"; done
mkdir -p "$root/home/tester" "$root/run/tester"
chown 1000:1000 "$root/home/tester" "$root/run/tester"
mknod -m 666 "$root/run/fuse" c 10 229
mount --bind "$root/run/fuse" "$root/dev/fuse"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount --bind "$image" "$root/mnt"
mount --bind "$scratch" "$root/srv"
cd "$root"
pivot_root . .
umount --lazy .
mount --make-rshared /
cd /
if [ "$user" = root ]; then exec "$@"; fi
exec setpriv --reuid "$user" --regid "$user" --init-groups --reset-env env XDG_RUNTIME_DIR=/run/tester "$@"
"""


def sid_root() -> Path:
    """The root with the engines in it, from the cache or newly made (a minute or two)."""
    need_root()
    need_program("debootstrap")
    root = CACHE / _key()
    with locked(CACHE):
        if not root.exists():
            for outdated in filter(Path.is_dir, CACHE.iterdir()):
                shutil.rmtree(outdated)
            _make(root)
    return root


def enter(
    command: Sequence[str],
    image: Path | str | bytes,
    user: str = USER,
    scratch: Path | None = None,
    unshare: Sequence[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """Run *command* inside as *user* (`tester` or `root`); exit status and both streams.

    *image* may be a symlink, as the public paths of a repository are. *unshare* are more options of `unshare`.
    """
    words = ["unshare", "--mount", "--propagation", "private", *unshare, "sh", "-c", ENTER, "sid"]
    root = sid_root()
    place = [str(root), os.path.realpath(os.fsdecode(image)), str(scratch or root / "srv"), user]
    return subprocess.run(
        [*words, *place, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=TIMEOUT_SECONDS,
    )


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
        pytest.skip(f"no Debian sid with the engines: the machine's mirror must have the suite sid: {refused}")
    quietly("chroot", str(part), "useradd", "--uid", str(UID), USER)
    for table in ("subuid", "subgid"):
        (part / "etc" / table).write_text(f"{USER}:100000:65536\n")
    (part / "etc" / "hosts").write_text("127.0.0.1 localhost\n")  # apptainer binds the host's
    part.rename(root)


def _key() -> str:
    sources = (Path(__file__), DEBIAN)
    return hashlib.sha256(b"".join(map(Path.read_bytes, sources))).hexdigest()[:12]
