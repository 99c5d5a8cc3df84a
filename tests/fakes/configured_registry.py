"""Debian's `docker-registry` over a storage that may be there already, with lines of configuration of a test's own."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from tests.needs import need_program
from tests.registry import CONFIG, Registry, free_port


@contextlib.contextmanager
def configured_registry(directory: Path, name: str, settings: str) -> Iterator[Registry]:
    """Serve the storage in *directory*; *name* is that of its log and configuration, *settings* are YAML lines."""
    need_program("docker-registry")
    registry = Registry(f"127.0.0.1:{free_port()}", directory / "storage", directory / f"{name}.log")
    registry.storage.mkdir(parents=True, exist_ok=True)
    config = directory / f"{name}.yml"
    config.write_text(CONFIG.format(storage=registry.storage, host=registry.host) + settings)
    with registry.log.open("wb") as log:
        command = ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", config]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(registry)
        yield registry
    finally:
        process.kill()
        process.wait()


def _wait_for(registry: Registry) -> None:
    for _ in range(200):
        try:
            requests.get(f"{registry.url}/v2/", timeout=5)
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"docker-registry did not start:\n{registry.log.read_text(errors='replace')}")
