"""Equal images give equal trees: in any repository, with any number of workers, in any order of wishes.

What is compared is the root hash of every tree that is mounted anywhere, those of layers included; a root hash names
every byte below it.
"""

import random

import pytest

from tests.end_to_end.published import repository
from tests.needs import need_root

NAMES = ("base", "python", "pruned", "small", "small-docker", "small-mixed", "small-index")
SEED = 20240229


@pytest.fixture(scope="module")
def wishes(images):
    need_root()
    return [images(name).wish for name in NAMES]


@pytest.fixture(scope="module")
def trees(wishes, tmp_path_factory):
    """By one worker, all wishes in one conversion."""
    return converted(tmp_path_factory.mktemp("one") / "repository", [wishes], workers=1)


def test_four_workers_in_another_repository_make_the_same_trees(trees, wishes, tmp_path):
    assert converted(tmp_path / "four", [wishes], workers=4, fqrn="others.ducc.test") == trees


def test_wishes_in_another_order_make_the_same_trees(trees, wishes, tmp_path):
    shuffled = random.Random(SEED).sample(wishes, len(wishes))
    assert converted(tmp_path / "shuffled", [shuffled], workers=3) == trees


def test_one_revision_for_each_wish_makes_the_same_trees(trees, wishes, tmp_path):
    """Whether layers come from a registry or from an earlier revision makes no difference."""
    assert converted(tmp_path / "one-by-one", [[wish] for wish in wishes], workers=2) == trees


def converted(directory, wishlists, *, workers, **names):
    with repository(directory, **names) as made:
        for wishlist in wishlists:
            made.convert(*wishlist, options=["--workers", workers])
        assert made.revision == 1 + len(wishlists)
        found = made.trees()
        assert all(image["root_hash"] in found.values() for image in made.images())
        return found
