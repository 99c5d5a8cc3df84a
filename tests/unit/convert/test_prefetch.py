"""What a start wanted, as lists of what is published."""

import pytest

from ducc import layout
from ducc.client.prefetch import from_bytes
from ducc.convert import assembly
from ducc.convert.prefetch import NoSuchImage, NothingOfImage, plan_prefetch
from ducc.convert.published import Published
from ducc.cvmfs.entry import Entry
from ducc.daemon.prune import Wished, plan_prune
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.publish.changes import Remove
from ducc.publish.commit import commit
from tests import builders
from tests.builders import Image, Layer
from tests.memory import nodes
from tests.unit.convert.desk import desk

LOWER = Layer.of(builders.file("lower", b"of the lower layer"), builders.file("unused", b"nobody wants this"))
UPPER = Layer.of(builders.file("upper", b"of the upper layer"))


class Shelf:
    """One image of two layers, published; objects by the names of files."""

    def __init__(self, table):
        self.table = table
        self.wish = table.hold(Image([LOWER, UPPER]))
        table.convert(self.wish)
        self.image = Reference.parse(self.wish)
        self.record = table.record(self.wish)
        self.names = {}
        catalogs = table.repository.catalogs
        for path, node in nodes(catalogs.load(self.record.image_tree), catalogs):
            if isinstance(node, Entry) and node.content:
                self.names[path.rpartition(b"/")[2].decode()] = node.content.hex()

    def publish(self, *starts, anew=False):
        repository = self.table.repository
        named = [[self.names.get(name, name) for name in start] for start in starts]
        planned = plan_prefetch(repository, repository.head(), self.image, named, anew=anew)
        with repository.store.session():
            commit(repository, self.table.keys, planned.changes)
        return planned

    def listed(self, tree):
        """Places and files of a list, or None."""
        data = Published(self.table.repository, self.table.repository.head()).file(layout.prefetch_list(tree))
        files = {name: file for file, name in self.names.items()}
        return data and [(one.place, files[str(one.wanted.name)]) for one in from_bytes(data, b"/list")]


@pytest.fixture
def shelf():
    with desk() as table:
        yield Shelf(table)


def layer(one):
    return Digest.parse(builders.sha256(one.blob))


def test_each_part_of_an_image_lists_what_a_start_wants_of_it(shelf):
    planned = shelf.publish(["upper", "0" * 40, "lower", "run"])
    assert shelf.listed(layer(LOWER)) == [(2, "lower")]
    assert shelf.listed(layer(UPPER)) == [(0, "upper")]
    assert shelf.listed(shelf.record.config_digest) == [(0, "upper"), (2, "lower"), (3, "run")]  # apptainer's file, too
    assert planned.objects == 3
    assert planned.bytes >= len(b"of the lower layerof the upper layer")
    assert shelf.table.errors() == []


def test_a_list_says_of_its_objects_what_the_catalogs_say(shelf):
    shelf.publish(["upper"])
    data = Published(shelf.table.repository, shelf.table.repository.head()).file(layout.prefetch_list(layer(UPPER)))
    ((_, wanted),) = from_bytes(data, b"/list")
    assert wanted.size == len(b"of the upper layer")


def test_further_starts_are_added_and_earliest_places_stay(shelf):
    shelf.publish(["upper", "lower"], ["lower"])
    shelf.publish(["unused", "upper"])
    assert sorted(shelf.listed(layer(LOWER))) == [(0, "lower"), (0, "unused")]
    assert shelf.listed(layer(UPPER)) == [(0, "upper")]
    shelf.publish(["unused"], anew=True)
    assert shelf.listed(layer(LOWER)) == [(0, "unused")]


def test_where_all_layers_are_in_one_directory_its_list_has_everything(monkeypatch):
    monkeypatch.setattr(assembly, "MOST_LAYERS_APART", 1)
    with desk() as table:
        shelf = Shelf(table)
        shelf.publish(["lower", "upper"])
        assert shelf.listed(layer(UPPER)) == [(0, "lower"), (1, "upper")]


def test_an_image_that_is_not_there_is_named(shelf):
    shelf.image = Reference.parse("https://nowhere.example/no:such")
    with pytest.raises(NoSuchImage, match=r"nowhere\.example/no:such"):
        shelf.publish(["upper"])


def test_a_start_of_something_else_is_refused(shelf):
    with pytest.raises(NothingOfImage, match="none of the 2 objects"):
        shelf.publish(["0" * 40, "1" * 40])


def test_lists_go_with_the_image(shelf):
    shelf.publish(["upper", "lower"])
    repository = shelf.table.repository
    for now in (10, 20):
        changes = plan_prune(repository, repository.head(), Wished(frozenset(), (), ()), now, 1.0).changes
        with repository.store.session():
            commit(repository, shelf.table.keys, changes)
    assert any(isinstance(change, Remove) for change in changes)
    assert repository.find(repository.head(), layout.PREFETCH) is None
    assert shelf.table.errors() == []
