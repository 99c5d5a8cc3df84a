"""The stock CernVM-FS programs, the judges of our bytes; a test that needs them is skipped where they are not.

Each mount has a cache and sockets of its own in a short path: a second mount with the same cache waits for ever, and
names of sockets are limited to 107 bytes.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ducc.publish.keys import KeyDirectory, generate_keys, sign_whitelist
from tests.end_to_end.overlay import overlay
from tests.end_to_end.published import Published
from tests.needs import need_fuse, need_root

PROGRAMS = ("cvmfs2", "cvmfs_swissknife")
HINT = "install the packages cvmfs and cvmfs-server, see https://cvmfs.readthedocs.io/en/stable/cpt-quickstart.html"
END_SECONDS = 60
STATISTICS = Path("/var/spool/cvmfs")
NOTHING_FOUND = "no problems found"

CONFIGURATION = """\
CVMFS_SERVER_URL={url}
CVMFS_HTTP_PROXY=DIRECT
CVMFS_PUBLIC_KEY={public_key}
CVMFS_CACHE_BASE={cache}
CVMFS_RELOAD_SOCKETS={directory}
CVMFS_USYSLOG={directory}/log
CVMFS_CLAIM_OWNERSHIP=no
"""


def need_stock() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"the judges of our bytes are missing ({', '.join(missing)}): {HINT}")
    need_root()
    need_fuse()


@contextmanager
def mounted(made: Published, url: str, cache: Path | None = None, more: str = "") -> Iterator[Path]:
    """The repository at *url* mounted by the stock client, with *cache* or one of its own, until the block ends.

    *more* are lines of configuration.
    """
    with tempfile.TemporaryDirectory(prefix="ducc-stock-") as short:
        directory = Path(short)
        configuration, mountpoint = directory / "conf", directory / "mnt"
        cache = cache or directory / "cache"
        configuration.write_text(
            CONFIGURATION.format(url=url, public_key=made.public_key, directory=directory, cache=cache) + more
        )
        mountpoint.mkdir()
        cache.mkdir(exist_ok=True)
        options = f"config={configuration},libfuse=3,allow_other,fsname=cvmfs2"
        done = run("cvmfs2", "-o", options, made.fqrn, mountpoint, status=None)
        log = directory / "log"
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}"
        try:
            yield mountpoint
        finally:
            subprocess.run(["umount", mountpoint], check=True)
            _wait_for_end(configuration)


def create(made: Published) -> None:
    """Make an empty repository, and keys for it, in the store of *made*, which has neither."""
    _make_store(made)
    now = datetime.now(UTC)
    keys, master = generate_keys(made.fqrn, now)
    KeyDirectory(made.keys, made.fqrn).save(keys, master)
    (made.root / ".cvmfswhitelist").write_bytes(sign_whitelist(keys, master, now))
    words = ["-r", spooler(made), "-n", made.fqrn, "-o", _manifest(made), "-R", _checksum(made)]
    run("cvmfs_swissknife", "create", "-t", made.directory, *words)
    sign(made, f"file://{made.root}")


def sign(made: Published, url: str) -> None:
    """Let the manifest that was made last be the one that *url* serves."""
    keys = KeyDirectory(made.keys, made.fqrn)
    words = ["-m", _manifest(made), "-u", url, "-r", spooler(made), "-R", _checksum(made), "-n", made.fqrn]
    run("cvmfs_swissknife", "sign", "-t", made.directory, *words, "-c", keys.certificate, "-k", keys.repository_key,
        "-s", "")  # fmt: skip


def publish(made: Published, url: str, below: Path, change: Callable[[Path], None], *options: object) -> None:
    """Publish what *change* does to a writable overlay of *below*, which shows the present revision."""
    base = made.manifest.root_hash.hex()
    scratch = Path(tempfile.mkdtemp(dir=made.directory))
    with overlay([below], scratch / "overlay", writable=True) as union, _statistics(made):
        change(union)
        words = ["-b", base, "-c", below, "-o", _manifest(made), "-r", spooler(made), "-u", union, "-w", url]
        words += ["-s", scratch / "overlay" / "upper", "-t", scratch, "-K", made.public_key, "-N", made.fqrn]
        run("cvmfs_swissknife", "sync", *words, "-f", "overlayfs", *options)
    sign(made, url)


def _manifest(made: Published) -> Path:
    return made.directory / "unsigned"


def _checksum(made: Published) -> Path:
    return made.directory / "reflog.chksum"


def _make_store(made: Published) -> None:
    for number in range(256):
        (made.root / "data" / f"{number:02x}").mkdir(parents=True, exist_ok=True)
    (made.root / "data" / "txn").mkdir(exist_ok=True)


@contextmanager
def _statistics(made: Published) -> Iterator[None]:
    """Some of the programs insist on writing statistics, and on finding a directory for them."""
    directory = STATISTICS / made.fqrn
    directory.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(directory)


def check(made: Published, url: str, directory: Path) -> None:
    """The stock checker finds nothing in the repository at *url*, whose reflog is in the store of *made*."""
    done = swissknife("check", made, directory, "-r", url, "-N", made.fqrn, "-R", reflog_checksum(made), "-c")
    assert NOTHING_FOUND in done.stdout


def pull(made: Published, url: str, replica: Published, replica_url: str, directory: Path, *, first: bool) -> None:
    """Replicate *url* into the store of *replica*, which later must be what *replica_url* serves."""
    _make_store(replica)
    words = ["-m", made.fqrn, "-u", url, "-w", replica_url, "-r", spooler(replica), "-R", _checksum(replica)]
    words += ["-n", "4", "-t", "5", "-a", "1", *(["-i"] if first else ["-p"])]
    swissknife("pull", made, directory, *words, temporary="-x")


def collect(made: Published, url: str, directory: Path) -> str:
    """Delete what neither the head nor a tag needs; return the list of what went."""
    checksum = reflog_checksum(made)
    with _statistics(made):
        words = ["-r", url, "-u", spooler(made), "-n", made.fqrn, "-R", checksum, "-h", "0", "-l"]
        return swissknife("gc", made, directory, *words).stdout


def reflog_checksum(made: Published) -> Path:
    """The file by which the stock programs know the reflog, written anew."""
    path = _checksum(made)
    path.write_text(hashlib.sha1((made.root / ".cvmfsreflog").read_bytes()).hexdigest())
    return path


def spooler(made: Published) -> str:
    return f"local,{made.root}/data/txn,{made.root}"


def swissknife(
    command: str, made: Published, directory: Path, *words: object, temporary: str = "-t"
) -> "subprocess.CompletedProcess[str]":
    scratch = tempfile.mkdtemp(dir=directory)
    return run("cvmfs_swissknife", command, *words, "-k", made.public_key, temporary, scratch)


def run(*words: object, status: int | None = 0) -> "subprocess.CompletedProcess[str]":
    command = [str(word) for word in words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=300
    )
    assert status in (None, done.returncode), (
        f"{command}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    return done


def _wait_for_end(configuration: Path) -> None:
    """The client's processes go on for a moment after its mount is gone."""
    marker = os.fsencode(f"config={configuration},")
    deadline = time.monotonic() + END_SECONDS
    while any(marker in _command_line(process) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "cvmfs2 does not end after its mount is gone"
        time.sleep(0.05)


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
