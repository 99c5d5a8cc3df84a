"""P6 and P13 as Kubernetes sees them: from `PullImage` to a program's first words, ours against overlayfs, in one run.

Both take the image from one registry on loopback and do what a kubelet does; the pod's sandbox is there before. The
node has the repository mounted twice, as its installation says: the second time without extended attributes. "Cold":
containerd knows nothing of the image, the client's cache is empty, and the kernel has no page of either. "Warm": the
image is there, and a container of it has run. What a start wants was noted on another node, and published; "without
list" is a node whose mounts fetch nothing ahead.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.stage import Stage
from bench.table import Row, verdict
from tests.builders import Image, Layer, push
from tests.containerd import NAME, Containerd, running_containerd
from tests.cri import Kubelet
from tests.end_to_end.published import Published, repository
from tests.images import build
from tests.images.small import system
from tests.snapshotter import running_snapshotter

IMAGE = "scientific"
PROGRAMS = {
    "a shell": ("/bin/sh", "-c", "echo ready"),
    "scientific Python": ("python3", "-B", "-c", "import numpy, scipy.stats, pandas; print('ready', flush=True)"),
}
RUNS = 3
COLD_RATIO, WARM_RATIO = 5.0, 1.1
_PATIENCE_SECONDS = 600


class Side(NamedTuple):
    """Who is measured: a snapshotter, and how the repository is mounted for it."""

    snapshotter: str
    options: tuple[str, ...] = ()


LISTED, UNLISTED, PEER = Side(NAME), Side(NAME, ("--no-prefetch",)), Side("overlayfs")


class Start(NamedTuple):
    """Seconds until the first words, and MB of layers that the registry was asked for."""

    cold: float
    warm: float
    megabytes: float


class Pods:
    """One image in a registry, and published."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        image = build(IMAGE)
        self._megabytes = image.size / 1e6
        self._reference = stage.push(image.layout, image.tag, "bench/pods")
        self._pause = f"{stage.registry.host}/bench/pause:1"
        push(
            stage.registry.host,
            "bench/pause",
            "1",
            Image([Layer.of(*system())], {"Entrypoint": ["/bin/sleep", "9999"]}),
        )

    def rows(self) -> list[Row]:
        with repository(self._stage.scratch / "pods") as made:
            made.convert(f"http://{self._reference}")
            with made.served() as url:
                return [row for program in PROGRAMS for row in self._rows(made, url, program)]

    def _rows(self, made: Published, url: str, program: str) -> list[Row]:
        self._publish_list(made, url, program)
        sides = (LISTED, UNLISTED, PEER)
        starts = [[self._start(made, url, side, program) for side in sides] for _ in range(RUNS)]
        ours, unlisted, peer = (_median(side) for side in zip(*starts, strict=True))
        what = f"PullImage of {self._megabytes:.0f} MB to the first words of {program}"
        fetched = f"{ours.megabytes:.0f} MB of layers fetched against {peer.megabytes:.0f}"
        return [
            _row("P6-pod", f"{what}, cold; {fetched}", ours.cold, peer.cold, COLD_RATIO),
            _row("P6-pod", f"{what}, cold, without list", unlisted.cold, peer.cold, COLD_RATIO),
            _row("P13-pod", f"{what}, warm", ours.warm, peer.warm, 1 / WARM_RATIO),
        ]

    def _publish_list(self, made: Published, url: str, program: str) -> None:
        """Let a node note what a start wants, and the publisher list it."""
        with self._node(made, url, UNLISTED) as (containerd, mounts), containerd.kubelet.pod("bench") as sandbox:
            made.ducc("client", "record", "start", *mounts)
            self._first_words(containerd.kubelet, sandbox, "noted", program)
            noted = [made.ducc("client", "record", "stop", mount).stdout for mount in mounts]
        files = [made.directory / f"start-{number}" for number in range(len(noted))]
        for file, text in zip(files, noted, strict=True):
            file.write_text(text)
        made.ducc("prefetch", made.fqrn, f"http://{self._reference}", *files, *made.where, "--keys", made.keys)

    def _start(self, made: Published, url: str, side: Side, program: str) -> Start:
        with self._node(made, url, side) as (containerd, _), containerd.kubelet.pod("bench") as sandbox:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3")
            before = self._served_bytes()
            cold, warm = (self._first_words(containerd.kubelet, sandbox, name, program) for name in ("cold", "warm"))
            return Start(cold, warm, (self._served_bytes() - before) / 1e6)

    def _first_words(self, kubelet: Kubelet, sandbox: str, name: str, program: str) -> float:
        began = time.monotonic()
        kubelet.pull(self._reference)
        container = kubelet.start(sandbox, "bench", name, self._reference, *PROGRAMS[program])
        log = kubelet.logs / f"{name}.log"
        while not log.exists() or b"ready" not in log.read_bytes():
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise TimeoutError(f"the program said nothing within {_PATIENCE_SECONDS} s")
            time.sleep(0.005)
        seconds = time.monotonic() - began
        kubelet.remove(container)
        return seconds

    @contextmanager
    def _node(self, made: Published, url: str, side: Side) -> Iterator[tuple[Containerd, tuple[Path, Path]]]:
        """A machine that has seen nothing yet, and where it has the repository mounted."""
        with ExitStack() as opened:
            place = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=self._stage.scratch, prefix="p")))
            mounts = opened.enter_context(made.mounted_twice(url, *side.options))
            program = opened.enter_context(running_snapshotter(place / "s", (made.fqrn, *mounts)))
            containerd = running_containerd(place / "c", program.address, self._pause, side.snapshotter)
            yield opened.enter_context(containerd), mounts

    def _served_bytes(self) -> int:
        return sum(request.size for request in self._stage.registry.blob_fetches())


def _median(starts: tuple[Start, ...]) -> Start:
    return Start(*map(median, zip(*starts, strict=True)))


def _row(figure: str, what: str, ours: float, peer: float, goal: float) -> Row:
    ratio = peer / ours
    return Row(figure, what, f"{ours:.2f} s", f"overlayfs {peer:.2f} s", f"{ratio:.1f}×", f"≥ {goal:.1f}×",
               verdict(ratio >= goal))  # fmt: skip
