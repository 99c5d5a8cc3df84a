"""What a mount holds in memory, however many images are looked at through it."""

import os

from bench.measure import memory_mb
from tests.end_to_end.test_mount import Site, site

__all__ = ["site"]  # a fixture

IMAGES = 400
MOST_MB = 45
OPEN_CATALOGS_MB = 20  # 128 of them, each with a handle and prepared questions of its own
GROWTH_MB = 8


def test_memory_does_not_grow_with_the_number_of_images(site: Site) -> None:
    publisher = site.publisher
    images = {
        b"/flat/%03d" % number: publisher.bind(
            {b"/usr/%d-%d" % (number, each): publisher.file(b"%d-%d" % (number, each)) for each in range(50)},
            b"%03d" % number,
        )
        for number in range(IMAGES)
    }
    site.publish(images, b"/flat")
    site.mount()
    new = memory_mb(site.root)
    walk(site, 0, IMAGES // 2)
    half = memory_mb(site.root)
    walk(site, IMAGES // 2, IMAGES)
    whole = memory_mb(site.root)
    assert new < MOST_MB
    assert half < MOST_MB + OPEN_CATALOGS_MB
    assert whole < half + GROWTH_MB, (new, half, whole)


def walk(site: Site, first: int, last: int) -> None:
    for number in range(first, last):
        assert len(os.listdir(site.root / "flat" / f"{number:03d}" / "usr")) == 50
