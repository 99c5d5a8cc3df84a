"""P6, P9–P11, P13: a mount against the stock client's, and against a local directory, in one run.

The image is served on loopback by a server that counts. Each client starts with an empty cache; "warm" is a new mount
over the cache that the cold start has filled, "first" the first use of a new mount, "hot" the second.
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

from bench.measure import run
from bench.stage import FQRN, SCRIPT, Place, Stage
from bench.table import Row, verdict
from tests.end_to_end import stock
from tests.end_to_end.published import Published
from tests.images import build

START = ("/usr/bin/python3", "-B", "-c", "import numpy, scipy.stats, pandas")
KINDS = ("walk", "stat", "open", "small", "bulk")
RUNS = 3
WARM_RATIO = 1.3

Mounting = Callable[[str, Path], AbstractContextManager[Path]]


class Client:
    """The scientific image, published once, and started from and read through every way there is."""

    def __init__(self, stage: Stage) -> None:
        stock.need_stock()
        self._stage = stage
        image = build("scientific")
        reference = stage.push(image.layout, image.tag, "bench/scientific")
        self._place = stage.place("client")
        self._place.convert(stage.wishlist("client", [reference]))
        self._local = stage.scratch / "local"
        run(["umoci", "unpack", "--image", f"{image.layout}:{image.tag}", self._local], stage.scratch / "umoci.log")

    def rows(self) -> list[Row]:
        with _served(self._place) as server:
            ours, peer = (
                [_started(server, mounting, self._stage.scratch / f"{name}-{number}") for number in range(RUNS)]
                for name, mounting in (("ours", self._mounted), ("stock", self._mounted_by_stock))
            )
            local = min(_start(self._local / "rootfs") for _ in range(RUNS))
            return [*_starts(ours, peer, local), *self._uses(server)]

    def _uses(self, server: "_Server") -> list[Row]:
        """Each use of a new mount and then of the same again, over a cache that has all."""
        caches = {"ours": self._stage.scratch / "ours-0", "stock": self._stage.scratch / "stock-0"}
        mountings: dict[str, Mounting] = {"ours": self._mounted, "stock": self._mounted_by_stock}
        rows = []
        for kind in KINDS:
            seen: dict[str, list[float]] = {}
            for name, mounting in mountings.items():
                for _ in range(2):  # the first fills the cache
                    with mounting(server.url, caches[name]) as root:
                        top = _image(root)
                        seen[name] = [_use(kind, top), _use(kind, top)]
            seen["local"] = [_use(kind, self._local / "rootfs") for _ in range(2)]
            for at, state in enumerate(("first", "hot")):
                ours, peer, local = (seen[name][at] for name in ("ours", "stock", "local"))
                what, goal = f"{kind}, {state} (a local directory: {_rate(local)})", "≥ stock"
                rows.append(
                    Row("P10/11", what, _rate(ours), _rate(peer), f"{ours / peer:.1f}×", goal, verdict(ours >= peer))
                )
        return rows

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


def _started(server: _Server, mounting: Mounting, cache: Path) -> tuple[float, float, int, int]:
    """Seconds of a cold start and of a warm one; requests and bytes of the cold one, mounting included."""
    shutil.rmtree(cache, ignore_errors=True)
    requests, size = server.counts()
    with mounting(server.url, cache) as root:
        cold = _start(_image(root))
    after, size_after = server.counts()
    with mounting(server.url, cache) as root:
        warm = _start(_image(root))
    return cold, warm, after - requests, size_after - size


def _starts(
    ours: list[tuple[float, float, int, int]], peer: list[tuple[float, float, int, int]], local: float
) -> list[Row]:
    cold, warm, requests, size = (min(column) for column in zip(*ours, strict=True))
    peer_cold, peer_warm, peer_requests, peer_size = (min(column) for column in zip(*peer, strict=True))
    return [
        Row("P6", "cold start of scientific Python", f"{cold:.2f} s", f"{peer_cold:.2f} s",
            f"{peer_cold / cold:.2f}×", "≥ 1×", verdict(cold <= peer_cold)),
        Row("P9", "requests and bytes of it", f"{requests}, {size / 1e6:.1f} MB",
            f"{peer_requests}, {peer_size / 1e6:.1f} MB", "", "", ""),
        Row("P13", f"start with a warm cache (stock {peer_warm:.2f} s), against a local directory",
            f"{warm:.2f} s", f"{local:.2f} s", f"{warm / local:.2f}×", f"≤ {WARM_RATIO}×",
            verdict(warm <= WARM_RATIO * local)),
    ]  # fmt: skip


def _start(root: Path) -> float:
    started = time.monotonic()
    subprocess.run(["chroot", root, *START], check=True, capture_output=True)
    return time.monotonic() - started


def _use(kind: str, top: Path) -> float:
    """Operations a second."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.workload", kind, top], check=True, capture_output=True, text=True
    )
    used = json.loads(done.stdout)
    return float(used["operations"] / used["seconds"])


def _image(root: Path) -> Path:
    """The only flat image of the repository."""
    for directory in os.scandir(root / ".flat"):
        for image in os.scandir(directory.path):
            if image.is_dir():
                return Path(image.path)
    raise FileNotFoundError(root)


def _rate(operations: float) -> str:
    return f"{operations:,.0f}/s"
