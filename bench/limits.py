"""P15, P16 and the greatest catalog: blobs fetched once, and what stays bounded however big an image is."""

import shutil
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing

from bench.family import push_version, stack
from bench.giants import PIECE, big_files, many_names, write_giant
from bench.measure import Cost
from bench.stage import Place, Stage
from bench.table import Row, verdict

GIB = (1 << 30) // PIECE  # pieces
P16_MB, CATALOG_ROWS = 250.0, 200_000
DIRECTORIES, FILES = 1_000, 1_000
VERSIONS = 10


class Limits:
    """Giants, one after the other: each needs a few gigabytes of disk."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def rows(self) -> list[Row]:
        return [
            self._egress(),
            self._memory("layer of 10 GiB, 2 560 files", "files", big_files(2560, 4)),
            self._memory("one file of 20 GiB", "file", big_files(1, 20 * GIB)),
            self._many_names(),
        ]

    def _egress(self) -> Row:
        """Ten tags with layers in common, by wishlists that overlap, each run twice."""
        registry = self._stage.registry
        tags = [push_version(registry, "bench/egress", version, stack(version)) for version in range(VERSIONS)]
        place = self._stage.place("egress")
        before = len(registry.blob_fetches())
        for wanted in (tags[:1], tags[:5], tags):
            for _ in range(2):
                place.convert(self._stage.wishlist("egress", wanted))
        fetches = registry.blob_fetches()[before:]
        sizes = {one.path: registry.blob_path(one.path.rpartition("/")[2]).stat().st_size for one in fetches}
        ratio = sum(one.size for one in fetches) / sum(sizes.values())
        return Row("P15", f"blob bytes served, {VERSIONS} tags, {len(sizes)} blobs, six runs", f"{ratio:.3f}×", "", "",
                   "1.000×", verdict(ratio < 1.0005))  # fmt: skip

    def _memory(self, what: str, name: str, archive: Iterable[bytes]) -> Row:
        _, cost, tar_size = self._publish(name, archive)
        return Row("P16", what, f"{cost.peak_mb:.0f} MB, {tar_size / 1e6 / cost.seconds:.0f} MB/s", "", "",
                   f"≤ {P16_MB:.0f} MB", verdict(cost.peak_mb <= P16_MB))  # fmt: skip

    def _many_names(self) -> Row:
        place, cost, _ = self._publish("names", many_names(DIRECTORIES, FILES))
        rows = greatest_catalog(place)
        spent = f"{cost.seconds:.0f} s, {cost.peak_mb:.0f} MB"
        return Row("rows", f"greatest catalog, {DIRECTORIES * FILES} files in one image ({spent})", str(rows), "", "",
                   f"≤ {CATALOG_ROWS}", verdict(rows <= CATALOG_ROWS))  # fmt: skip

    def _publish(self, name: str, archive: Iterable[bytes]) -> tuple[Place, Cost, int]:
        layout = self._stage.scratch / f"giant-{name}"
        tar_size = write_giant(layout, name, archive)
        reference = self._stage.push(layout, name, f"bench/giant-{name}")
        shutil.rmtree(layout)
        place = self._stage.place(name)
        return place, place.convert(self._stage.wishlist(name, [reference])), tar_size


def greatest_catalog(place: Place) -> int:
    """Rows of the catalog that has most of them."""
    return max(_rows(path.read_bytes()) for path in place.objects.rglob("*C") if path.is_file())


def _rows(stored: bytes) -> int:
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(zlib.decompress(stored))
        (count,) = database.execute("SELECT count(*) FROM catalog").fetchone()
    return int(count)
