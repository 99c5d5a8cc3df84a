"""Catalogs in an object store: verified, remembered within bounds, and never taken for what they are not."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from ducc.catalog import store as catalog_store
from ducc.catalog.reader import BadCatalog
from ducc.catalog.schema import CatalogRef, Counters
from ducc.catalog.split import SplitPolicy
from ducc.catalog.tree import MARKER, Nested
from ducc.catalog.writer import write_tree
from ducc.cvmfs.compression import BadObject, compressor
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.storage.base import ObjectMissing
from ducc.storage.memory import MemoryStore
from tests.memory import COMPRESSOR, catalogs_in_memory, counted, directory_entry, file, forgetful, rows, tree

NESTED = tree({b"/%d/%d" % (one, two): file(b"%d" % two) for one in range(4) for two in range(5)})
POLICY = SplitPolicy(heavy=4, light=2)


class CountingStore(MemoryStore):
    def __init__(self):
        super().__init__()
        self.gets, self.puts = [], []

    def get(self, name):
        self.gets.append(name)
        return super().get(name)

    def put(self, name, data):
        self.puts.append(name)
        super().put(name, data)


@pytest.fixture
def store():
    return CountingStore()


@pytest.fixture
def catalogs(store):
    return catalogs_in_memory(store)


@pytest.fixture
def written(catalogs):
    return write_tree(NESTED, catalogs, POLICY)


def test_a_catalog_is_stored_compressed_under_the_hash_of_its_bytes(store, catalogs, written):
    name = ObjectName(written.ref.digest, Suffix.CATALOG)
    assert ObjectName.of(store.get(name), Suffix.CATALOG) == name
    assert written.ref.size == len(catalogs._inflate(store.get(name), written.ref.size))


def test_what_is_there_is_not_put_again(store, catalogs, written):
    before = list(store.puts)
    assert write_tree(NESTED, forgetful(catalogs), POLICY) == written
    assert store.puts == before


def test_loading_opens_one_catalog_and_nothing_below_it(store, catalogs, written):
    fresh = forgetful(catalogs)
    store.gets.clear()
    root = fresh.load(written.ref)
    assert store.gets == [ObjectName(written.ref.digest, Suffix.CATALOG)]
    assert any(isinstance(node, Nested) for node in root.children.values())


def test_what_was_loaded_is_not_fetched_again(store, catalogs, written):
    fresh = forgetful(catalogs)
    first = fresh.load(written.ref)
    store.gets.clear()
    assert fresh.load(written.ref) is first
    assert store.gets == []


def test_the_least_recently_used_is_forgotten_when_there_are_too_many_rows(monkeypatch, store, catalogs):
    monkeypatch.setattr(catalog_store, "REMEMBERED_ROWS", 10)
    one, two, three = (
        write_tree(tree({b"/%d" % n: file(b"f") for n in range(k, k + 4)}), catalogs, POLICY).ref for k in range(3)
    )
    fresh = forgetful(catalogs)
    for ref in (one, two, one, three):
        fresh.load(ref)
    store.gets.clear()
    fresh.load(one)
    assert store.gets == []
    fresh.load(two)
    assert len(store.gets) == 1


def test_one_catalog_is_remembered_even_if_it_is_too_big(monkeypatch, store, catalogs, written):
    monkeypatch.setattr(catalog_store, "REMEMBERED_ROWS", 0)
    fresh = forgetful(catalogs)
    assert fresh.load(written.ref) is fresh.load(written.ref)


def test_an_opened_subtree_has_its_mountpoints_attributes_and_should_nest_again(catalogs, written):
    root = catalogs.load(written.ref)
    nested = next(node for node in root.children.values() if isinstance(node, Nested))
    opened = catalogs.open_nested(nested._replace(entry=nested.entry._replace(uid=42)))
    assert opened.nested
    assert opened.entry == nested.entry._replace(uid=42)
    assert catalogs.load(nested.ref).entry.uid == 0


def test_counters_are_known_after_writing_and_read_where_they_are_not(store, catalogs, written):
    store.gets.clear()
    assert catalogs.counters(written.ref) == written.counters
    assert store.gets == []
    assert forgetful(catalogs).counters(written.ref) == written.counters == counted(catalogs, written.ref)


def test_the_marker_is_hidden_empty_and_has_an_object(store, catalogs):
    marker = catalogs.marker()
    assert (marker.name, marker.hidden, marker.size, marker.is_regular) == (MARKER, True, 0, True)
    assert store.exists(ObjectName(marker.content))
    assert catalogs._inflate(store.get(ObjectName(marker.content)), 0) == b""


def test_other_bytes_under_a_catalogs_name_are_refused(store, catalogs, written):
    store.flush()
    name = ObjectName(written.ref.digest, Suffix.CATALOG)
    store.objects[name] = compressor(COMPRESSOR)(b"something else")
    with pytest.raises(BadCatalog, match=str(written.ref)):
        forgetful(catalogs).load(written.ref)


def test_a_catalog_that_is_gone_is_missing(store, catalogs, written):
    store.flush()
    store.objects.clear()
    with pytest.raises(ObjectMissing):
        forgetful(catalogs).load(written.ref)


def test_a_catalog_of_another_size_than_announced_is_refused(catalogs, written):
    with pytest.raises(BadObject):
        forgetful(catalogs).load(CatalogRef(written.ref.digest, written.ref.size + 1))


def damaged(catalogs, ref, *statements):
    """The same catalog after some SQL, under the name that its bytes then have."""
    stored = catalogs._store.get(ObjectName(ref.digest, Suffix.CATALOG))
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(catalogs._inflate(stored, ref.size))
    for statement in statements:
        database.execute(statement)
    return catalogs.put(database.serialize(), Counters())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM catalog WHERE name = ''",
        "DELETE FROM nested_catalogs",
        "UPDATE catalog SET parent_1 = 1 WHERE flags & 2",
        "UPDATE catalog SET flags = flags | 32 WHERE flags & 2",
        "DELETE FROM statistics WHERE counter = 'subtree_dir'",
        "CREATE VIEW trap AS SELECT 1",
        "DROP TABLE chunks",
    ],
)
def test_a_catalog_whose_hash_is_right_and_content_wrong_is_an_error_with_a_name(catalogs, written, statement):
    with pytest.raises(BadCatalog):
        forgetful(catalogs).load(damaged(catalogs, written.ref, statement))


def test_bytes_that_are_no_database_are_an_error_with_a_name(catalogs):
    with pytest.raises(BadCatalog):
        catalogs.load(catalogs.put(b"not SQLite" * 200, Counters()))


def test_many_threads_may_load_at_once(catalogs, written):
    fresh = forgetful(catalogs)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: rows(fresh.load(written.ref), fresh), range(40)))
    assert all(one == rows(NESTED, catalogs) for one in found)


def test_a_directory_entry_of_a_catalogs_root_keeps_its_attributes(catalogs):
    root = tree({b"/a": file(b"a")})
    root.entry = directory_entry(uid=5, gid=6, mtime=7)
    ref = write_tree(root, catalogs, POLICY).ref
    loaded = forgetful(catalogs).load(ref).entry
    assert (loaded.uid, loaded.gid, loaded.mtime) == (5, 6, 7)
