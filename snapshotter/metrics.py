"""What Prometheus is told: a text file for the node exporter's textfile collector.

A file and not a port, because this process runs as root and has no business with a network.
"""

import logging
import os
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

log = logging.getLogger("ducc.snapshotter")

_EVERY_SECONDS = 15.0


class Metrics:
    """Counts since the start."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "ducc_snapshotter_calls", "calls answered, by status code", ["call", "code"], registry=self._registry
        )
        self._layers = Counter(
            "ducc_snapshotter_layers",
            "layers asked for: published, absent, unavailable (no answer), unnamed (no usable labels)",
            ["outcome"],
            registry=self._registry,
        )
        self._written = Gauge(
            "ducc_snapshotter_last_write_timestamp_seconds", "when this file was written", registry=self._registry
        )

    def called(self, call: str, code: str) -> None:
        self._calls.labels(call, code).inc()

    def decided(self, outcome: str) -> None:
        self._layers.labels(outcome).inc()

    def write(self, path: Path) -> None:
        """Let *path* say what is counted so far; readers see the old file or the new one. Raises `OSError`."""
        self._written.set_to_current_time()
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_bytes(generate_latest(self._registry))
        new.chmod(0o644)  # the exporter is another user
        new.replace(path)

    def keep_written(self, path: Path, ended: threading.Event) -> None:
        """Write now, which may raise `OSError`, and in the background again and again until all has *ended*."""
        self.write(path)
        threading.Thread(target=self._write_until, args=(path, ended), name="metrics", daemon=True).start()

    def _write_until(self, path: Path, ended: threading.Event) -> None:
        while not ended.wait(_EVERY_SECONDS):
            try:
                self.write(path)
            except OSError as error:
                log.warning("metrics are not written: %s", error)
