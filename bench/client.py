"""P6, P9–P13, and memory: a mount against the stock client's, a local directory, and the least a FUSE mount costs.

The image is served on loopback by a server that counts. Each client starts with an empty cache; "warm" is a new mount
over the cache that the cold start has filled, "first" the first use of a new mount over a cache that has all, "hot" the
use after that, when only the kernel is asked. The stock client is left out where it is not installed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.measure import memory_mb, run
from bench.stage import FQRN, SCRIPT, Place, Stage
from bench.table import Row, verdict
from tests.end_to_end import stock
from tests.end_to_end.published import Published
from tests.images import build

START = ("/usr/bin/python3", "-B", "-c", "import numpy, scipy.stats, pandas")
KINDS = ("walk", "stat", "open", "small", "bulk")
RUNS, AGAIN = 3, 3
WARM_RATIO = 1.3
FLOOR_RATIO = 0.9
MOST_MEMORY_MB = 45

Mounting = Callable[[str, Path], AbstractContextManager[Path]]


class Started(NamedTuple):
    """Seconds of a cold start and of a warm one; requests and bytes of the cold one, mounting included."""

    cold: float
    warm: float
    requests: int
    bytes: int


class Used(NamedTuple):
    """Operations a second (of `bulk`: MB), on a mount that was not used yet and on the same again."""

    first: float
    hot: float


class Client:
    """The scientific image, published once, and started from and read through every way there is."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        image = build("scientific")
        self._reference = stage.push(image.layout, image.tag, "bench/scientific")
        self._place = stage.place("client")
        self._place.convert(stage.wishlist("client", [self._reference]))
        self._local = stage.scratch / "local"
        run(["umoci", "unpack", "--image", f"{image.layout}:{image.tag}", self._local], stage.scratch / "umoci.log")
        self._mountings: dict[str, Mounting] = {"ours": self._mounted}
        if all(map(shutil.which, stock.PROGRAMS)):
            self._mountings["stock"] = self._mounted_by_stock

    def rows(self) -> list[Row]:
        with _served(self._place) as server:
            started: dict[str, list[Started]] = {name: [] for name in self._mountings}
            local = []
            for number in range(RUNS):  # in turn
                for name, mounting in self._mountings.items():
                    started[name].append(_started(server, mounting, self._cache(name, number)))
                local.append(_start(self._local / "rootfs"))
            used = [*self._memory(server), *self._uses(server), *self._bulk(server)]
            return [*_starts(started, min(local)), *used, *self._listed(server)]

    def _cache(self, name: str, number: int) -> Path:
        return self._stage.scratch / f"{name}-{number}"

    def _memory(self, server: "_Server") -> list[Row]:
        """Of all processes behind one mount."""
        held: dict[str, list[float]] = {}
        for name, mounting in self._mountings.items():
            with mounting(server.url, self._cache(name, 0)) as root:
                held[name] = [memory_mb(root)]
                _used("walk", _image(root))
                held[name].append(memory_mb(root))
        rows = []
        for at, state in enumerate(("new mount", "everything walked: its catalogs are open")):
            ours, peer = held["ours"][at], held["stock"][at] if "stock" in held else None
            goal = (f"≤ {MOST_MEMORY_MB} MB", verdict(ours <= MOST_MEMORY_MB)) if at == 0 else ("", "")
            ratio = f"{ours / peer:.1f}×" if peer else ""
            rows.append(Row("memory", state, f"{ours:.0f} MB", f"{peer:.0f} MB" if peer else "", ratio, *goal))
        return rows

    def _uses(self, server: "_Server") -> list[Row]:
        """Each use of a new mount and then of the same again."""
        local = self._local / "rootfs"
        rows = []
        for kind in KINDS:
            used = self._best(kind, server.url)
            here = _used(kind, local)
            with _floor(local) as root:
                floor = _used(kind, root)
            ours, peer = used["ours"], used.get("stock")
            if peer:
                rows.append(_against("P10/11", f"{kind}, first", ours.first, peer.first, kind))
                rows.append(_against("P10/11", f"{kind}, hot", ours.hot, peer.hot, kind))
            what = f"{kind}, hot, against the least of any FUSE mount (a local directory: {_rate(here.hot, kind)})"
            rows.append(_against("P10/11", what, ours.hot, floor.hot, kind, FLOOR_RATIO))
        return rows

    def _best(self, kind: str, url: str) -> dict[str, Used]:
        """Of several mounts, in turn; the first one fills the cache."""
        best = {name: Used(0, 0) for name in self._mountings}
        for _ in range(RUNS):
            for name, mounting in self._mountings.items():
                with mounting(url, self._cache(name, 0)) as root:
                    best[name] = Used(*map(max, zip(best[name], _used(kind, _image(root)), strict=True)))
        return best

    def _bulk(self, server: "_Server") -> list[Row]:
        """Large files: that nothing on this machine has yet, and by many past the kernel's page cache."""
        seen = {}
        for name, mounting in self._mountings.items():
            cache = self._stage.scratch / f"{name}-empty"
            with mounting(server.url, cache) as root:
                seen[name] = [_used(kind, _image(root)).first for kind in ("bulk", "many")]
        if "stock" not in seen:
            return []
        return [
            _against("P12", "bulk, from the server", seen["ours"][0], seen["stock"][0], "bulk"),
            _against(
                "P12", "64 readers at once, each as slow as the slowest", seen["ours"][1], seen["stock"][1], "many"
            ),
        ]

    def _listed(self, server: "_Server") -> list[Row]:
        """Cold starts once it is published what a start wants."""
        noted = self._stage.scratch / "start"
        with self._mounted(server.url, self._cache("noting", 0)) as root:
            subprocess.run([SCRIPT, "client", "record", "start", root], check=True)
            _start(_image(root))
            with noted.open("w") as file:
                subprocess.run([SCRIPT, "client", "record", "stop", root], check=True, stdout=file)
        self._place.ducc("prefetch", FQRN, f"http://{self._reference}", noted)
        seconds: dict[str, list[float]] = {name: [] for name in self._mountings}
        for number in range(RUNS):
            for name, mounting in self._mountings.items():
                with mounting(server.url, self._cache(f"{name}-listed", number)) as root:
                    seconds[name].append(_start(_image(root)))
        ours, peer = min(seconds["ours"]), min(seconds.get("stock", [0]))
        compared = (f"{peer:.2f} s", f"{peer / ours:.2f}×") if peer else ("", "")
        return [Row("P6", "cold start of scientific Python, fetched ahead", f"{ours:.2f} s", *compared, "", "")]

    @contextmanager
    def _mounted(self, url: str, cache: Path) -> Iterator[Path]:
        root = Path(tempfile.mkdtemp(dir=self._stage.scratch))
        key = self._place.directory / "keys" / f"{FQRN}.pub"
        log = self._stage.scratch / "mount.log"
        run([SCRIPT, "mount", FQRN, root, "--url", url, "--public-key", key, "--cache", cache], log)
        try:
            yield root
        finally:
            run([SCRIPT, "umount", root], log)

    @contextmanager
    def _mounted_by_stock(self, url: str, cache: Path) -> Iterator[Path]:
        made = Published(self._place.directory, ducc=None, fqrn=FQRN)  # type: ignore[arg-type]  # runs nothing of ours
        with stock.mounted(made, url, cache) as root:
            yield root


class _Server:
    """A counting server of one repository."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}/cvmfs/{FQRN}"

    def counts(self) -> tuple[int, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/counts") as answer:
            counts = json.load(answer)
        return counts["requests"], counts["bytes"]


@contextmanager
def _served(place: Place) -> Iterator[_Server]:
    command = [sys.executable, "-m", "bench.counting", str(place.directory / "storage")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield _Server(int(process.stdout.readline()))
        process.terminate()


@contextmanager
def _floor(source: Path) -> Iterator[Path]:
    """The local directory, shown by a FUSE file system that does nothing else."""
    root = tempfile.mkdtemp(dir=source.parent)
    command = [sys.executable, "-m", "bench.floor", str(source), root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield Path(root)
        finally:
            subprocess.run(["fusermount3", "-u", root], check=True)


def _started(server: _Server, mounting: Mounting, cache: Path) -> Started:
    shutil.rmtree(cache, ignore_errors=True)
    requests, size = server.counts()
    with mounting(server.url, cache) as root:
        cold = _start(_image(root))
    after, size_after = server.counts()
    with mounting(server.url, cache) as root:
        warm = _start(_image(root))
    return Started(cold, warm, after - requests, size_after - size)


def _starts(started: dict[str, list[Started]], local: float) -> list[Row]:
    best = {name: Started(*map(min, zip(*seen, strict=True))) for name, seen in started.items()}
    ours, peer = best["ours"], best.get("stock")
    asked = f"{ours.requests}, {ours.bytes / 1e6:.1f} MB"
    also = f" (stock {peer.warm:.2f} s)" if peer else ""
    cold = Row("P6", "cold start of scientific Python", f"{ours.cold:.2f} s", "", "", "", "")
    counted = Row("P9", "requests and bytes of it", asked, "", "", "", "")
    if peer:
        ratio = peer.cold / ours.cold
        cold = Row("P6", cold.what, cold.ours, f"{peer.cold:.2f} s", f"{ratio:.2f}×", "≥ 1×", verdict(ratio >= 1))
        counted = Row("P9", counted.what, asked, f"{peer.requests}, {peer.bytes / 1e6:.1f} MB", "", "", "")
    return [
        cold,
        counted,
        Row("P13", f"start with a warm cache{also}, against a local directory",
            f"{ours.warm:.2f} s", f"{local:.2f} s", f"{ours.warm / local:.2f}×", f"≤ {WARM_RATIO}×",
            verdict(ours.warm <= WARM_RATIO * local)),
    ]  # fmt: skip


def _against(figure: str, what: str, ours: float, peer: float, kind: str, least: float = 1.0) -> Row:
    ratio = ours / peer
    goal = f"≥ {least:g}×"
    return Row(figure, what, _rate(ours, kind), _rate(peer, kind), f"{ratio:.2f}×", goal, verdict(ratio >= least))


def _start(root: Path) -> float:
    started = time.monotonic()
    subprocess.run(["chroot", root, *START], check=True, capture_output=True)
    return time.monotonic() - started


def _used(kind: str, top: Path) -> Used:
    command = [sys.executable, "-m", "bench.workload", kind, str(top), str(1 + AGAIN)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    used = json.loads(done.stdout)
    first, *again = ((one["bytes"] / 1e6 if kind == "bulk" else one["operations"]) / one["seconds"] for one in used)
    return Used(first, max(again))


def _image(root: Path) -> Path:
    """The only flat image of the repository."""
    for directory in os.scandir(root / ".flat"):
        for image in os.scandir(directory.path):
            if image.is_dir():
                return Path(image.path)
    raise FileNotFoundError(root)


def _rate(rate: float, kind: str) -> str:
    return f"{rate:,.0f} MB/s" if kind == "bulk" else f"{rate:,.0f}/s"
