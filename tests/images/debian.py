"""Debian inside a directory: debootstrap, and apt by chroot with the machine's own sources.

The mirror is whatever this machine's apt uses; it is read at run time and leaves no trace in the images.
"""

import subprocess
from pathlib import Path

import pytest

from tests.needs import need_program

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

INSTALL = """
set -e
root=$1; sources=$2; settings=$3; shift 3
for hidden in etc/apt var/lib/apt/lists var/cache var/log; do mount -t tmpfs tmpfs "$root/$hidden"; done
mkdir -p "$root/etc/apt/apt.conf.d" "$root/etc/apt/preferences.d" "$root/var/cache/apt/archives/partial"
echo "$sources" > "$root/etc/apt/sources.list"
echo "$settings" > "$root/etc/apt/apt.conf"
if [ -f {certificates} ]; then cp {certificates} "$root/etc/apt/certificates"; fi
if [ -f "$root/etc/resolv.conf" ]; then mount --bind /etc/resolv.conf "$root/etc/resolv.conf"; fi
mount -t proc proc "$root/proc"
chroot "$root" apt-get -q update
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -q -y --no-install-recommends \\
    -o Dpkg::Options::=--force-unsafe-io install "$@"
"""


def bootstrap(root: Path, suite: str = SUITE, *, include: tuple[str, ...] = ()) -> None:
    """Install Debian's minimal base into the empty directory *root*."""
    need_program("debootstrap")
    options = ["--variant=minbase", *([f"--include={','.join(include)}"] if include else [])]
    quietly("debootstrap", *options, suite, str(root), mirror())
    for remains in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        quietly("find", str(root / remains), "-type", "f", "-delete")
    (root / "etc" / "apt" / "sources.list").write_text("")


def install(root: Path, *packages: str, suite: str = SUITE) -> None:
    """Install packages by the apt of *root*. Lists, downloads, logs and sources are gone afterwards.

    Everything is mounted in a namespace of its own, which ends with the command.
    """
    script = INSTALL.replace("{certificates}", str(CERTIFICATES))
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "install"]
    quietly(*enter, str(root), _sources_list(suite), _settings(), *packages)


def mirror() -> str:
    """Where the machine itself gets Debian from."""
    return next(uri for uri, release, _ in _targets() if release == SUITE)


def _targets() -> list[tuple[str, str, str]]:
    """(URI, release, component) of every source of Debian 12 that the machine's apt knows."""
    wanted = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    )
    targets = [tuple(line.split()) for line in told.stdout.splitlines()]
    found = [target for target in dict.fromkeys(targets) if target[1].startswith(SUITE) and target[2] == "main"]
    if not found:
        pytest.skip(f"apt knows no mirror of Debian {SUITE}: add one to /etc/apt/sources.list")
    return found


def _sources_list(suite: str) -> str:
    """All that the machine knows of Debian 12, updates included; the one mirror for any other suite.

    Other suites' lists expire after a week, and a frozen mirror's are older; they must be signed all the same.
    """
    if suite == SUITE:
        return "\n".join(f"deb [signed-by={KEYRING}] {' '.join(target)}" for target in _targets())
    return f"deb [signed-by={KEYRING} check-valid-until=no] {mirror()} {suite} main"


def _settings() -> str:
    """The machine's proxies and the like, with its certificates at the place where they are copied to."""
    told = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True)
    kept = [line for line in told.stdout.splitlines() if line.lower().startswith(("acquire::http", "acquire::ftp"))]
    if CERTIFICATES.exists():
        kept.append('Acquire::https::CAInfo "/etc/apt/certificates";')
    return "\n".join(kept)


def quietly(*command: str) -> None:
    """Run a talkative command; show what it said only if it failed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        said = done.stdout.decode(errors="replace")[-4000:]
        raise RuntimeError(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{said}")
