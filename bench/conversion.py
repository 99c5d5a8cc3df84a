"""P1, P2, P14: one big image from a registry to a signed revision, against `umoci unpack` of the same image.

The peer reads an OCI layout on the local disk and writes files, which are then synced; we fetch through HTTP, compress,
hash, write objects, layer trees and the image tree, sync and sign.
"""

import json
from pathlib import Path

from bench.measure import Cost, in_turn, median, run
from bench.rebuilt import push_rebuilt
from bench.stage import Place, Stage
from bench.table import Row, verdict
from tests.images import Built, build

RUNS = 3
P1_RATIO, P2_RATIO = 4.0, 10.0
STORED_RATIO, DENSE_STORED_RATIO, DENSE_RATIO = 1.10, 1.00, 2.0


class Conversion:
    """The scientific image, converted again and again into fresh repositories."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._image: Built = build("scientific")
        self._reference = stage.push(self._image.layout, self._image.tag, "bench/scientific")
        self._megabytes = _uncompressed_bytes(self._image) / 1e6

    def rows(self) -> list[Row]:
        ours, peer = in_turn(self._convert_new, self._unpack, RUNS)
        return [
            self._row("P1", "new content", median(ours), median(peer), P1_RATIO),
            self._known_content(median(peer)),
            *self._stored(median(peer)),
        ]

    def _convert_new(self, number: int, *options: str) -> Cost:
        place = self._place(f"new-{number}", *options)
        return place.convert(self._stage.wishlist("new", [self._reference]))

    def _unpack(self, number: int) -> Cost:
        target = self._stage.scratch / f"umoci-{number}"
        image = f"{self._image.layout}:{self._image.tag}"
        return run(["umoci", "unpack", "--image", image, target], self._stage.scratch / "umoci.log", synced=True)

    def _known_content(self, peer: Cost) -> Row:
        """The same files in other archives, with other digests, into a repository that has them all."""
        blobs = layer_blobs(self._image)
        rebuilt = [push_rebuilt(self._stage.registry, blobs, number) for number in range(RUNS)]
        place = self._place("known")
        place.convert(self._stage.wishlist("known", [self._reference]))
        costs = [place.convert(self._stage.wishlist(f"known-{n}", [one])) for n, one in enumerate(rebuilt)]
        return self._row("P2", "known content, other archives", median(costs), peer, P2_RATIO)

    def _stored(self, peer: Cost) -> list[Row]:
        """What the profiles store, against zlib level 6 as stock publishers use it."""
        sizes, costs = {}, {}
        for profile in ("default", "dense", "fast", "compatible"):
            place = self._place(f"stored-{profile}", "--profile", profile)
            costs[profile] = place.convert(self._stage.wishlist("stored", [self._reference]))
            sizes[profile] = place.stored_bytes()
        limits = {"default": STORED_RATIO, "dense": DENSE_STORED_RATIO}
        rows = [_stored_row(profile, sizes[profile], sizes["compatible"], limit) for profile, limit in limits.items()]
        speeds = [
            self._row("P14", f"{profile} profile, new content", costs[profile], peer, goal)
            for profile, goal in (("dense", DENSE_RATIO), ("fast", P1_RATIO))
        ]
        return [*rows, *speeds]

    def _place(self, name: str, *options: str) -> Place:
        return self._stage.place(name, *options)

    def _row(self, figure: str, what: str, ours: Cost, peer: Cost, goal: float) -> Row:
        ratio = peer.seconds / ours.seconds
        return Row(
            figure, f"{what} ({self._megabytes:.0f} MB)", self._speed(ours), "umoci " + self._speed(peer),
            f"{ratio:.1f}×", f"≥ {goal:g}×", verdict(ratio >= goal),
        )  # fmt: skip

    def _speed(self, cost: Cost) -> str:
        return f"{cost.seconds:.2f} s, {self._megabytes / cost.seconds:.0f} MB/s, {cost.peak_mb:.0f} MB"


def _stored_row(profile: str, ours: int, peer: int, limit: float) -> Row:
    ratio = ours / peer
    sizes = (f"{size / 1e6:.1f} MB" for size in (ours, peer))
    return Row("P14", f"stored bytes, {profile} profile", next(sizes), "zlib-6 " + next(sizes), f"{ratio:.3f}×",
               f"≤ {limit:.2f}×", verdict(ratio <= limit))  # fmt: skip


def _uncompressed_bytes(image: Built) -> int:
    """Bytes of the image's archives, by inflating them."""
    from isal import igzip

    total = 0
    for blob in layer_blobs(image):
        with igzip.open(blob) as archive:
            while piece := archive.read(1 << 20):
                total += len(piece)
    return total


def layer_blobs(image: Built) -> list[Path]:
    """The layers of an image in an OCI layout, base first."""
    blobs = image.layout / "blobs" / "sha256"
    index = json.loads((image.layout / "index.json").read_text())
    (entry,) = (e for e in index["manifests"] if e["annotations"]["org.opencontainers.image.ref.name"] == image.tag)
    manifest = json.loads((blobs / entry["digest"].removeprefix("sha256:")).read_text())
    return [blobs / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]
