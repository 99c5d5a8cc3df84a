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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.published import Published
from tests.needs import need_fuse, need_root

PROGRAMS = ("cvmfs2", "cvmfs_swissknife")
HINT = "install the packages cvmfs and cvmfs-server, see https://cvmfs.readthedocs.io/en/stable/cpt-quickstart.html"
END_SECONDS = 60
STATISTICS = Path("/var/spool/cvmfs")  # where the collector insists on writing its statistics
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


def check(made: Published, url: str, directory: Path) -> None:
    """The stock checker finds nothing in the repository at *url*, whose reflog is in the store of *made*."""
    done = swissknife("check", made, directory, "-r", url, "-N", made.fqrn, "-R", reflog_checksum(made), "-c")
    assert NOTHING_FOUND in done.stdout


def pull(made: Published, url: str, replica: Published, replica_url: str, directory: Path, *, first: bool) -> None:
    """Replicate *url* into the store of *replica*, which later must be what *replica_url* serves."""
    for number in range(256):
        (replica.root / "data" / f"{number:02x}").mkdir(parents=True, exist_ok=True)
    (replica.root / "data" / "txn").mkdir(exist_ok=True)
    checksum = replica.directory / "reflog.chksum"
    words = ["-m", made.fqrn, "-u", url, "-w", replica_url, "-r", spooler(replica), "-R", checksum]
    words += ["-n", "4", "-t", "5", "-a", "1", *(["-i"] if first else ["-p"])]
    swissknife("pull", made, directory, *words, temporary="-x")


def collect(made: Published, url: str, directory: Path) -> str:
    """Delete what neither the head nor a tag needs; return the list of what went."""
    statistics = STATISTICS / made.fqrn
    statistics.mkdir(parents=True)
    checksum = reflog_checksum(made)
    try:
        words = ["-r", url, "-u", spooler(made), "-n", made.fqrn, "-R", checksum, "-h", "0", "-l"]
        return swissknife("gc", made, directory, *words).stdout
    finally:
        shutil.rmtree(statistics)


def reflog_checksum(made: Published) -> Path:
    """The file by which the stock programs know the reflog, written anew."""
    path = made.directory / "reflog.chksum"
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
