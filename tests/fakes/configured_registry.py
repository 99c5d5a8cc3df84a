"""Debian's `docker-registry` over a storage that may be there already, with lines of configuration of a test's own."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.needs import need_program
from tests.registry import CONFIG, Registry, free_port, wait_until_it_answers


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
        wait_until_it_answers(registry, process)
        yield registry
    finally:
        process.kill()
        process.wait()
