"""The contract of `ObjectStore`, on every implementation."""

import os
import subprocess
import sys
import threading

import pytest

from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.storage.base import MANIFEST, REFLOG, WHITELIST, Claimed, HeadMoved, ObjectMissing
from ducc.storage.local import LocalStore
from ducc.storage.memory import MemoryStore

OBJECT = b"some bytes"
NAME = ObjectName.of(OBJECT)


class Place:
    """Where repositories are; `store` is what one more process would open."""

    def __init__(self, kind, path):
        self._memory = MemoryStore()
        self._path = path
        self.shares_bytes = kind == "local"  # does a second store object see what the first one flushed?
        self.store = self.reopen()

    def reopen(self):
        return LocalStore(self._path / "repo.example.org") if self.shares_bytes else self._memory


@pytest.fixture(params=["memory", "local"])
def place(request, tmp_path):
    return Place(request.param, tmp_path)


@pytest.fixture
def store(place):
    return place.store


def test_an_empty_store_has_nothing(store):
    assert not store.exists(NAME)
    assert store.read_file(MANIFEST) is None
    with pytest.raises(ObjectMissing):
        store.get(NAME)
    with pytest.raises(ObjectMissing):
        store.size(NAME)


def test_what_was_put_is_readable_at_once_and_by_all_after_flush(place, store):
    with store.session():
        store.put(NAME, OBJECT)
        assert (store.exists(NAME), store.get(NAME), store.size(NAME)) == (True, OBJECT, len(OBJECT))
        store.flush()
        assert place.reopen().get(NAME) == OBJECT
    assert store.get(NAME) == OBJECT


def test_what_was_not_flushed_is_dropped_with_the_session(place, store):
    with store.session():
        store.put(NAME, OBJECT)
    assert not store.exists(NAME)
    assert not place.reopen().exists(NAME)


def test_others_do_not_see_what_is_on_its_way(place, store):
    if not place.shares_bytes:
        pytest.skip("there is but one store object")
    with store.session():
        store.put(NAME, OBJECT)
        assert not place.reopen().exists(NAME)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_bytes_of_any_kind_and_length(store, form, size):
    data = os.urandom(size)
    with store.session():
        store.put(ObjectName.of(data), form(data))
        store.flush()
    assert store.get(ObjectName.of(data)) == data


def test_putting_again_changes_nothing(store):
    with store.session():
        store.put(NAME, OBJECT)
        store.put(NAME, OBJECT)
        store.flush()
        store.put(NAME, OBJECT)
        store.flush()
        store.flush()
    assert store.get(NAME) == OBJECT


def test_objects_of_one_hash_and_different_kinds_are_different(store):
    with store.session():
        store.put(NAME, OBJECT)
        store.flush()
    assert not store.exists(ObjectName(NAME.digest, Suffix.CHUNK))


def test_two_sessions_one_after_the_other(store):
    for number in range(2):
        with store.session():
            store.put(ObjectName.of(b"%d" % number), b"%d" % number)
            store.flush()
    assert [store.get(ObjectName.of(b"%d" % number)) for number in range(2)] == [b"0", b"1"]


def test_puts_from_many_threads(store):
    objects = [b"object %d" % number for number in range(400)]

    def put(some):
        for data in some:
            store.put(ObjectName.of(data), data)

    with store.session():
        threads = [threading.Thread(target=put, args=(objects[start:] + objects[:start],)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.flush()
    assert [store.get(ObjectName.of(data)) for data in objects] == objects


def test_flush_while_others_put(store):
    objects = [b"object %d" % number for number in range(400)]

    def put():
        for data in objects:
            store.put(ObjectName.of(data), data)

    with store.session():
        thread = threading.Thread(target=put)
        thread.start()
        while thread.is_alive():
            store.flush()
        store.flush()
    assert [store.get(ObjectName.of(data)) for data in objects] == objects


def test_root_files_are_replaced(place, store):
    store.write_file(WHITELIST, b"old")
    store.write_file(WHITELIST, b"new")
    assert place.reopen().read_file(WHITELIST) == b"new"


def test_the_head_moves_from_what_was_expected_to_what_was_given(place, store):
    store.replace_head(None, b"one", b"reflog one")
    store.replace_head(b"one", b"two", b"reflog two")
    assert (place.reopen().read_file(MANIFEST), store.read_file(REFLOG)) == (b"two", b"reflog two")


@pytest.mark.parametrize("expected", [None, b"other"])
def test_a_head_that_moved_stays_where_it_is(store, expected):
    store.replace_head(None, b"one", b"reflog one")
    with pytest.raises(HeadMoved):
        store.replace_head(expected, b"two", b"reflog two")
    assert (store.read_file(MANIFEST), store.read_file(REFLOG)) == (b"one", b"reflog one")


def test_replacing_the_head_flushes(place, store):
    with store.session():
        store.put(NAME, OBJECT)
        store.replace_head(None, b"one", b"reflog")
        assert place.reopen().get(NAME) == OBJECT


def test_of_many_that_replace_one_head_one_wins(place):
    stores = [place.reopen() for _ in range(8)]
    won = []

    def race(number):
        try:
            stores[number].replace_head(None, b"%d" % number, b"reflog %d" % number)
            won.append(number)
        except HeadMoved:
            pass

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place.reopen().read_file(MANIFEST) == b"%d" % won[0]
    assert place.reopen().read_file(REFLOG) == b"reflog %d" % won[0]
    assert len(won) == 1


def test_a_claim_is_one_holders_at_a_time(place, store):
    with store.claim("loop"), pytest.raises(Claimed), place.reopen().claim("loop"):
        pytest.fail("two have it")
    with place.reopen().claim("loop"):
        pass


def test_claims_of_different_names_and_publishing_go_together(place, store):
    with store.claim("loop"), place.reopen().claim("prune"), store.session():
        store.put(NAME, OBJECT)
        store.replace_head(None, b"one", b"reflog")
    assert place.reopen().read_file(MANIFEST) == b"one"


def test_a_claim_goes_with_an_error(store):
    with pytest.raises(ValueError), store.claim("loop"):
        raise ValueError
    with store.claim("loop"):
        pass


def test_a_claim_names_its_holder_and_ends_with_a_killed_process(tmp_path):
    program = (
        "import sys, time, pathlib; from ducc.storage.local import LocalStore\n"
        "with LocalStore(pathlib.Path(sys.argv[1])).claim('loop'): print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"mine\n"
        with pytest.raises(Claimed, match=f"process {process.pid} on "), LocalStore(tmp_path).claim("loop"):
            pytest.fail("two have it")
        process.kill()
    with LocalStore(tmp_path).claim("loop"):
        pass
