"""The growth curve as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import matplotlib.pyplot as plt


class GrowthPoint(Protocol):
    images: int
    seconds: float
    catalog_bytes: float


def draw_growth(points: Sequence[GrowthPoint], path: Path) -> None:
    """Draw time and catalog bytes for each image over the number of images."""
    images = [point.images for point in points]
    figure, (times, sizes) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    times.plot(images, [point.seconds * 1000 for point in points], marker="o")
    times.set(title="time for one more image", xlabel="images in the repository", ylabel="ms", ylim=0)
    sizes.plot(images, [point.catalog_bytes / 1000 for point in points], marker="o")
    sizes.set(title="catalogs for one more image", xlabel="images in the repository", ylabel="kB", ylim=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
