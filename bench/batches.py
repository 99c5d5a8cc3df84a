"""P3, P4, P5 and growth: many images with layers in common, and what one more costs."""

from dataclasses import dataclass
from pathlib import Path

from bench.family import LAYERS, changed_layer, common_layers, push_version, stack
from bench.measure import median
from bench.picture import draw_growth
from bench.stage import Place, Stage
from bench.table import Row, verdict

RUNS = 5
IMAGES, STEP = 1_000, 100
P3_SECONDS, P4_SECONDS, P4_COMMITS, P5_SECONDS, FLAT = 0.5, 0.1, 20, 3.0, 1.5
PICTURE = Path("build/growth.png")


@dataclass(frozen=True, slots=True)
class Point:
    """What the last *STEP* images cost, when there were *images* in all: seconds and catalog bytes for each."""

    images: int
    seconds: float
    catalog_bytes: float


class Batches:
    """One repository that holds a family of images, more and more of them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._place: Place = stage.place("family")
        everything = push_version(stage.registry, "bench/all", 0, common_layers())
        self._place.convert(stage.wishlist("all", [everything]))

    def rows(self) -> list[Row]:
        return [self._one_layer_changed(), *self._all_known(), self._nothing_changed()]

    def _one_layer_changed(self) -> Row:
        *below, _ = common_layers()
        costs = []
        for version in range(RUNS):
            reference = push_version(self._stage.registry, "bench/nightly", version, (*below, changed_layer(version)))
            costs.append(self._place.convert(self._stage.wishlist(f"nightly-{version}", [reference])))
        cost = median(costs)
        return Row("P3", f"new tag, one 5 MB layer of {LAYERS} changed", f"{cost.seconds:.2f} s", "", "",
                   f"≤ {P3_SECONDS} s", verdict(cost.seconds <= P3_SECONDS))  # fmt: skip

    def _all_known(self) -> list[Row]:
        registry = self._stage.registry
        references = [push_version(registry, "bench/family", n, stack(n)) for n in range(IMAGES)]
        points = [self._convert_step(references[: end + STEP]) for end in range(0, IMAGES, STEP)]
        draw_growth(points, PICTURE)
        each = sum(point.seconds for point in points) * STEP / IMAGES
        growth = points[-1].seconds / points[0].seconds
        bytes_growth = points[-1].catalog_bytes / points[0].catalog_bytes
        first, last = points[0], points[-1]
        return [
            Row("P4", f"image of known layers, {IMAGES} in {IMAGES // STEP} commits", f"{each * 1000:.0f} ms", "", "",
                f"≤ {P4_SECONDS * 1000:.0f} ms", verdict(each <= P4_SECONDS)),
            Row("growth", f"time an image, {IMAGES} against {STEP}", f"{last.seconds * 1000:.0f} ms",
                f"{first.seconds * 1000:.0f} ms", f"{growth:.2f}×", f"≤ {FLAT}×", verdict(growth <= FLAT)),
            Row("growth", f"catalog bytes an image, {IMAGES} against {STEP}", f"{last.catalog_bytes / 1000:.0f} kB",
                f"{first.catalog_bytes / 1000:.0f} kB", f"{bytes_growth:.2f}×", f"≤ {FLAT}×",
                verdict(bytes_growth <= FLAT)),
        ]  # fmt: skip

    def _convert_step(self, references: list[str]) -> Point:
        before = catalog_bytes(self._place)
        cost = self._place.convert(self._stage.wishlist(f"family-{len(references)}", references[-STEP:]))
        return Point(len(references), cost.seconds / STEP, (catalog_bytes(self._place) - before) / STEP)

    def _nothing_changed(self) -> Row:
        references = [f"{self._stage.registry.host}/bench/family:v{number}" for number in range(IMAGES)]
        wishlist = self._stage.wishlist("unchanged", references)
        asked = len(self._stage.registry.requests())
        costs = [self._place.convert(wishlist) for _ in range(RUNS)]
        requests = (len(self._stage.registry.requests()) - asked) / RUNS / IMAGES
        seconds = median(costs).seconds
        return Row("P5", f"nothing changed, {IMAGES} wishes, {requests:.2f} requests each", f"{seconds:.2f} s", "", "",
                   f"≤ {P5_SECONDS:g} s, 1 request", verdict(seconds <= P5_SECONDS and requests <= 1))  # fmt: skip


def catalog_bytes(place: Place) -> int:
    """Stored bytes of all catalogs of a repository."""
    return sum(path.stat().st_size for path in place.objects.rglob("*C") if path.is_file())
