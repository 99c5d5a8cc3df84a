"""Real container images, built on the spot and kept between runs: the input of every serious test.

    base        Debian 12, and a layer of everything odd that a file system can hold
    python      Python on it
    scientific  a compiler, numpy, scipy, pandas and more on that: above 20 000 files and 700 MB
    service     nginx on python, with an entrypoint
    pruned      deletes and replaces much of what lies below, partly made by umoci and partly by hand
    small       three tiny layers with a static busybox, wholly made by hand, with the same tree as
                small-docker (schema 2), small-mixed (gzip, zstd and uncompressed layers) and
                small-index (four entries: two platforms, an attestation for each)

The first five stand in one OCI layout in the project's cache directory, a tag each, and are rebuilt when their
recipe (the module of their name) or one below it changes. `python -m tests.images build` builds them by hand.
"""

from tests.images.oracle import expected_tree
from tests.images.small import VARIANTS, write_small
from tests.images.workshop import RECIPES, Built
from tests.images.workshop import build as build_recipe

OF_DEBIAN = (*RECIPES, "service")


def names() -> list[str]:
    return [*OF_DEBIAN, *VARIANTS]


def build(name: str) -> Built:
    """The image, from the cache or newly made, with whatever it stands on."""
    return build_recipe(name) if name in OF_DEBIAN else write_small(name)


__all__ = ["Built", "build", "expected_tree", "names"]
