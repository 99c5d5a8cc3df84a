"""Where catalogs begin: none too heavy, whatever the shape; few, and the same for equal trees."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducc.catalog.schema import CatalogRef
from ducc.catalog.split import SplitPolicy, choose_nested
from ducc.catalog.tree import Directory, Nested, directories
from ducc.catalog.writer import write_tree
from tests.memory import catalogs_in_memory, directory_entry, file, refs, tree

POLICY = SplitPolicy()
SMALL = SplitPolicy(heavy=40, light=10, limit=100)


def directory(name: bytes, files: int = 0, *below: Directory) -> Directory:
    children = {b"%06d" % number: file(b"%06d" % number) for number in range(files)}
    return Directory(directory_entry(name), children | {one.entry.name: one for one in below})


def many_small(count: int, files: int) -> Directory:
    return directory(b"", 0, *(directory(b"d%05d" % number, files) for number in range(count)))


def chain(depth: int, files: int) -> Directory:
    below = directory(b"c", files)
    for _ in range(depth - 1):
        below = directory(b"c", files, below)
    return directory(b"", files, below)


def comb(depth: int, teeth: int) -> Directory:
    """A chain in which every directory has many small ones beside the next."""
    below = directory(b"c")
    for _ in range(depth):
        below = directory(b"c", 0, below, *(directory(b"t%04d" % number, 1) for number in range(teeth)))
    return directory(b"", 0, below)


SHAPES = {
    "nothing": lambda: directory(b""),
    "20 000 directories of 7 files": lambda: many_small(20_000, 7),
    "120 000 files in one directory": lambda: directory(b"", 0, directory(b"flat", 120_000)),
    "a chain of 1 500 levels": lambda: chain(1500, 0),
    "a chain of 1 500 levels with 90 files each": lambda: chain(1500, 90),
    "a chain of 300 levels with 400 files each": lambda: chain(300, 400),
    "a comb": lambda: comb(120, 120),
    "one heavy among many light": lambda: directory(
        b"", 10, directory(b"heavy", 5000), *(directory(b"l%d" % number, 3) for number in range(300))
    ),
}  # fmt: skip


def weights(root: Directory, nested: set[int]) -> dict[bytes, int]:
    """Rows of each catalog (markers not counted), by the path at which it begins."""
    found: dict[bytes, int] = {}
    region: dict[bytes, bytes] = {}
    for path, one in directories(root):
        above = path.rpartition(b"/")[0]
        begins = not path or id(one) in nested
        region[path] = path if begins else region[above]
        found[region[path]] = found.get(region[path], int(begins)) + len(one.children)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_no_catalog_is_above_the_limit_but_for_one_directory_that_is(shape):
    root = SHAPES[shape]()
    widest = max(len(one.children) for _, one in directories(root))
    found = weights(root, choose_nested(root, POLICY))
    assert max(found.values()) <= max(POLICY.limit, widest + 1)
    assert sum(found.values()) - len(found) + 1 == 1 + sum(len(one.children) for _, one in directories(root))


@pytest.mark.parametrize("shape", ["a chain of 1 500 levels with 90 files each", "one heavy among many light"])
def test_a_catalog_gives_away_what_is_heavy_enough_until_it_is_light_enough(shape):
    root = SHAPES[shape]()
    found = weights(root, choose_nested(root, POLICY))
    assert max(weight for path, weight in found.items() if path.count(b"/") != 1) <= POLICY.heavy
    assert all(weight >= POLICY.light for path, weight in found.items() if path)


def test_small_trees_are_one_catalog():
    for root in (directory(b""), many_small(300, 4), chain(1500, 0)):
        assert choose_nested(root, POLICY) == set()


def test_the_heaviest_go_first_and_of_equals_the_first_by_name():
    root = directory(b"", 0, directory(b"a", 20), directory(b"b", 30), directory(b"c", 20), directory(b"d", 15))
    chosen = choose_nested(root, SMALL)
    assert [name for name, one in sorted(root.children.items()) if id(one) in chosen] == [b"a", b"b"]


def test_a_former_nested_root_stays_one_until_it_is_too_light():
    root = directory(b"", 0, directory(b"light", SMALL.light - 2), directory(b"enough", SMALL.light - 1))
    for child in root.children.values():
        child.nested = True
    assert choose_nested(root, SMALL) == {id(root.children[b"enough"])}


def test_with_keep_all_a_nested_root_stays_one_even_when_it_is_empty():
    root = directory(b"", 0, directory(b"empty"))
    root.children[b"empty"].nested = True
    assert choose_nested(root, SplitPolicy(keep_all=True)) == {id(root.children[b"empty"])}


def test_what_was_not_opened_weighs_one_row():
    unopened = {b"n%03d" % n: Nested(directory_entry(b"n%03d" % n), CatalogRef(bytes(20), 1)) for n in range(30)}
    root = Directory(directory_entry(), {b"below": Directory(directory_entry(b"below"), dict(unopened))})
    assert choose_nested(root, SMALL) == set()
    assert weights(root, set()) == {b"": 32}


SHAPE = st.recursive(st.integers(0, 30), lambda below: st.lists(below, max_size=12), max_leaves=60)


def shaped(value: object, name: bytes = b"") -> Directory:
    if isinstance(value, int):
        return directory(name, value)
    return directory(name, 1, *(shaped(one, b"d%02d" % number) for number, one in enumerate(value)))


def shuffled(root: Directory, seed: int) -> Directory:
    """The same tree, made in another order."""
    chance = random.Random(seed)
    children = list(root.children.items())
    chance.shuffle(children)
    return Directory(
        root.entry,
        {name: shuffled(node, chance.random()) if isinstance(node, Directory) else node for name, node in children},
    )


@given(SHAPE, st.integers())
@settings(max_examples=60, deadline=None)
def test_the_order_in_which_a_tree_was_made_does_not_matter(value, seed):
    root = shaped(value)
    catalogs = catalogs_in_memory()
    written = write_tree(root, catalogs, SMALL)
    assert write_tree(shuffled(root, seed), catalogs, SMALL).ref == written.ref


@given(SHAPE, st.integers(1, 60), st.integers(1, 30), st.integers(31, 90))
@settings(max_examples=150, deadline=None)
def test_no_shape_makes_a_catalog_too_heavy(value, heavy, light, limit):
    root = shaped(value)
    policy = SplitPolicy(min(heavy, limit), light, limit)
    widest = max(len(one.children) for _, one in directories(root))
    assert max(weights(root, choose_nested(root, policy)).values()) <= max(policy.limit, widest + 1)


def test_the_written_catalogs_begin_where_was_chosen():
    root = tree({b"/%d/%d/%d" % (n % 3, n % 5, n): file(b"%d" % n) for n in range(200)})
    catalogs = catalogs_in_memory()
    chosen = choose_nested(root, SMALL)
    expected = {path for path, one in directories(root) if not path or id(one) in chosen}
    assert len(expected) > 3
    assert set(refs(catalogs, write_tree(root, catalogs, SMALL).ref)) == expected
