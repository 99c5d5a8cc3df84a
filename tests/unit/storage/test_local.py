import os
import stat
import subprocess
import sys

import pytest

from ducc.cvmfs.objectname import ObjectName
from ducc.storage import durable
from ducc.storage.base import MANIFEST, StoreRefused, StoreUnavailable
from ducc.storage.local import LocalStore
from ducc.storage.open import BadStorageURL, local_directory, open_store

OBJECT = b"some bytes"
NAME = ObjectName.of(OBJECT)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "repo.example.org"


@pytest.fixture
def store(root):
    return LocalStore(root)


def put(store, data=OBJECT):
    with store.session():
        store.put(ObjectName.of(data), data)
        store.flush()


def test_layout(store, root):
    put(store)
    assert (root / NAME.path).read_bytes() == OBJECT
    assert {path.name for path in (root / "data").iterdir()} == {"txn", *(f"{one:02x}" for one in range(256))}


@pytest.mark.parametrize("umask", [0, 0o077])
def test_modes_do_not_depend_on_the_umask(store, root, umask):
    before = os.umask(umask)
    try:
        put(store)
        store.replace_head(None, b"manifest", b"reflog")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (root / NAME.path, root / MANIFEST)}
    assert modes == {0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root, *(root / "data").iterdir())} == {0o755}


def test_an_object_is_put_within_a_session_only(store):
    with pytest.raises(RuntimeError):
        store.put(NAME, OBJECT)


def test_the_remains_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(store, root):
    script = """
import os, pathlib, signal, sys
from ducc.storage.local import LocalStore
from ducc.cvmfs.objectname import ObjectName
store = LocalStore(pathlib.Path(sys.argv[1]))
with store.session():
    store.put(ObjectName.of(b"lost"), b"lost")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, root], check=False)
    assert len(list((root / "data/txn").glob("session-*"))) == 1
    with store.session(), LocalStore(root).session():
        assert len(list((root / "data/txn").glob("session-*"))) == 2
    assert list((root / "data/txn").glob("session-*")) == []
    assert not store.exists(ObjectName.of(b"lost"))


@pytest.mark.parametrize("place_it", [os.mkdir, lambda path: os.symlink("/etc/passwd", path), os.mkfifo])
def test_what_is_no_file_is_no_object(store, root, place_it):
    put(store, b"other")
    place_it(root / NAME.path)
    assert not store.exists(NAME)
    with pytest.raises(StoreUnavailable):
        store.get(NAME)


@pytest.mark.parametrize(
    ("error", "outcome"), [(28, StoreRefused), (30, StoreRefused), (13, StoreRefused), (5, StoreUnavailable)]
)
@pytest.mark.parametrize("call", ["pwrite", "fchmod", "open"])
def test_a_failed_put_leaves_nothing(store, root, monkeypatch, call, error, outcome):
    def fail(*_args, **_kwargs):
        raise OSError(error, os.strerror(error))

    with store.session():
        monkeypatch.setattr(durable.os, call, fail)
        with pytest.raises(outcome):
            store.put(NAME, OBJECT)
        monkeypatch.undo()
        assert not store.exists(NAME)
        assert [path.name for path in (root / "data/txn").glob("session-*/**/*") if path.is_file()] == ["lock"]
        store.put(NAME, OBJECT)
        store.flush()
    assert store.get(NAME) == OBJECT


def test_short_writes_are_continued(store, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(durable.os, "pwrite", lambda descriptor, data, offset: write(descriptor, data[:3], offset))
    put(store)
    assert store.get(NAME) == OBJECT


def test_a_write_that_lies_is_found_out(store, monkeypatch):
    monkeypatch.setattr(durable.os, "pwrite", lambda _descriptor, data, _offset: len(data))
    with store.session():
        with pytest.raises(StoreUnavailable):
            store.put(NAME, OBJECT)
        assert not store.exists(NAME)


def test_after_a_failed_sync_nothing_that_was_put_counts(store, root, monkeypatch):
    def fail(_descriptor):
        durable.ctypes.set_errno(5)
        return -1

    with store.session():
        store.put(NAME, OBJECT)
        with monkeypatch.context() as broken:
            broken.setattr(durable._libc, "syncfs", fail)
            with pytest.raises(StoreUnavailable):
                store.flush()
        assert not store.exists(NAME)
        store.flush()
    assert not (root / NAME.path).exists()


def test_a_head_that_cannot_be_written_leaves_the_old_one(store, root, monkeypatch):
    store.replace_head(None, b"one", b"reflog one")

    def fail(_descriptor):
        raise OSError(28, "no space")

    monkeypatch.setattr(durable.os, "fsync", fail)
    with pytest.raises(StoreRefused):
        store.replace_head(b"one", b"two", b"reflog two")
    assert store.read_file(MANIFEST) == b"one"
    assert [path.name for path in (root / "data/txn").iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["passwd", "../x", ".cvmfs/../x", "data/00/x"])
def test_only_root_files_are_read_and_written_by_name(store, name):
    with pytest.raises(ValueError):
        store.read_file(name)
    with pytest.raises(ValueError):
        store.write_file(name, b"")


def test_a_storage_url_names_a_directory(tmp_path):
    assert str(local_directory("file:///srv/my%20repos", "repo.example.org")) == "/srv/my repos/repo.example.org"
    assert isinstance(open_store(f"file://{tmp_path}", "repo.example.org"), LocalStore)


@pytest.mark.parametrize(
    "url", ["", "/srv/cvmfs", "s3://bucket", "file://host/srv", "file:srv", "file:///srv?x", "file:///srv#x"]
)
def test_other_storage_urls_are_refused(url):
    with pytest.raises(BadStorageURL):
        open_store(url, "repo.example.org")


def test_sessions_begin_far_from_what_was_deleted_where_the_file_system_can_do_that(store, root):
    put(store)
    listed = subprocess.run(["lsattr", "-d", root / "data/txn"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"needs a file system with attributes of ext4 under {root}: {listed.stderr.strip()}")
    assert "T" in listed.stdout.split()[0]
    with store.session():
        pass
    again = subprocess.run(["lsattr", "-d", root / "data/txn"], capture_output=True, text=True, check=True)
    assert again.stdout == listed.stdout


def test_a_file_system_without_such_attributes_is_as_good(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(25, os.strerror(25))

    monkeypatch.setattr(durable.fcntl, "ioctl", refuse)
    put(LocalStore(tmp_path / "repo"))
    assert (tmp_path / "repo" / NAME.path).read_bytes() == OBJECT
