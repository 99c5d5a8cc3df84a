"""Debian's `docker-registry` on loopback, for the length of a `with` block.

It holds what is pushed in a plain directory, so tests can damage a blob on its disk (`blob_path`), and writes
an access log, so tests can count what was asked of it (`requests`). It dies with the process that started it.
"""

import contextlib
import random
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.builders import Image, sha256
from tests.needs import need_program

START_SECONDS = 60
USER, PASSWORD = "alice", "wonderland"  # who may come in where basic_auth is asked for
HTPASSWD = f"{USER}:$2b$05$3fGrjKSxAkaO3B/RdoQ6g.0RQrAM9GJ8XnlNKi92SdczPCzmcryl2\n"

CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: {storage}, maxthreads: 100}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "{host}"}}
"""
BASIC_AUTH = "auth: {{htpasswd: {{realm: test, path: {path}}}}}\n"
MARK = "log-until-here="  # in the query of our own requests
_FIRST_PORT = 10_000  # below, services have theirs
_DICE = random.SystemRandom()  # the same seed in two processes would give them the same port
LOG_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3}) (?P<size>\d+)')


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    status: int
    size: int

    @property
    def is_blob(self) -> bool:
        return "/blobs/" in self.path and "/blobs/uploads/" not in self.path


@dataclass(frozen=True)
class Registry:
    """A running registry. *host* is `127.0.0.1:PORT`, as it stands in image references."""

    host: str
    storage: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def requests(self) -> list[Request]:
        """Every request answered so far, oldest first."""
        self._let_it_write()
        found = map(LOG_LINE.search, self.log.read_text(errors="replace").splitlines())
        answered = [Request(m["method"], m["path"], int(m["status"]), int(m["size"])) for m in found if m]
        return [request for request in answered if MARK not in request.path]

    def _let_it_write(self) -> None:
        """It answers first and writes its log then: wait until it has written of a request that comes after all."""
        mark = f"{MARK}{time.monotonic_ns()}"
        try:
            requests.get(f"{self.url}/v2/?{mark}", timeout=60)
        except requests.ConnectionError:
            return  # it has ended, and writes nothing any more
        deadline = time.monotonic() + 60
        while mark not in self.log.read_text(errors="replace"):
            assert time.monotonic() < deadline, "docker-registry does not write its log"
            time.sleep(0.002)

    def blob_fetches(self) -> list[Request]:
        """The GETs of blobs so far: what a conversion downloaded."""
        return [request for request in self.requests() if request.is_blob and request.method == "GET"]

    def blob_path(self, digest: str) -> Path:
        """Where the registry keeps a blob; it serves whatever stands there, also when it was damaged."""
        digits = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"

    def put(self, name: str, tag: str, image: Image) -> None:
        """Place an image where the registry looks for it: much quicker than a push, for lists of a thousand."""
        repository = self.storage / "docker/registry/v2/repositories" / name
        digest = sha256(image.manifest)
        for blob in (*image.blobs, image.manifest):
            _write(self.blob_path(sha256(blob)), blob)
        links = [repository / "_layers/sha256" / sha256(blob).removeprefix("sha256:") for blob in image.blobs]
        revision = digest.removeprefix("sha256:")
        links += [repository / "_manifests/revisions/sha256" / revision]
        links += [repository / "_manifests/tags" / tag / place for place in ("current", f"index/sha256/{revision}")]
        for link in links:
            named = digest if "_manifests" in link.parts else f"sha256:{link.name}"
            _write(link / "link", named.encode())

    def copy_from(self, source: str, name: str, tag: str, *options: str) -> str:
        """Push by skopeo from any of its transports (`oci:DIR:TAG`, …); return the reference host/name:tag."""
        need_program("skopeo")
        reference = f"{self.host}/{name}:{tag}"
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *options]
        subprocess.run([*command, source, f"docker://{reference}"], check=True)
        return reference


@contextmanager
def running_registry(directory: Path, *, basic_auth: bool = False) -> Iterator[Registry]:
    """Serve from *directory* (made if missing, kept afterwards) on a free port until the block ends."""
    need_program("docker-registry")
    storage = directory / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    registry = Registry(f"127.0.0.1:{free_port()}", storage, directory / "access.log")
    config = directory / "config.yml"
    config.write_text(CONFIG.format(storage=storage, host=registry.host) + _auth(directory, basic_auth))
    with registry.log.open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_it_answers(registry, process)
        yield registry
    finally:
        process.kill()
        process.wait()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _auth(directory: Path, wanted: bool) -> str:
    if not wanted:
        return ""
    passwords = directory / "htpasswd"
    passwords.write_text(HTPASSWD)
    return BASIC_AUTH.format(path=passwords)


def wait_until_it_answers(registry: Registry, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            requests.get(f"{registry.url}/v2/", timeout=5)
        except requests.RequestException:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"docker-registry did not start:\n{registry.log.read_text(errors='replace')}")


def free_port() -> int:
    """A port of loopback that is free, and stays so until it is used: none of those that the kernel chooses itself."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    others = [port for port in range(_FIRST_PORT, 1 << 16) if not low <= port <= high] or [0]
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", _DICE.choice(others)))
            return int(probe.getsockname()[1])
