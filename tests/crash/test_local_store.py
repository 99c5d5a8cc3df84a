"""A local store, cut at every step: final names never hold anything but their own bytes.

Two kinds of cut. *Killed*: the process ends, the kernel keeps what it was told. *Power cut*: every file that was not
synced since it was written is empty, as on a journalling file system, while all renames hold (the worst order).
"""

import itertools
import math
import os

import pytest

from ducc.cvmfs.objectname import ObjectName
from ducc.storage import local
from ducc.storage.base import MANIFEST, REFLOG
from ducc.storage.local import LocalStore

OLD = [b"old object", b"another old object"]
NEW = [b"new object %d" % number for number in range(5)]
MANIFESTS = {b"manifest one": b"reflog one", b"manifest two": b"reflog two"}


class PowerCut(BaseException):
    """Not an Exception: nobody is to handle it."""


class Machine:
    """Counts the steps that change the file system, cuts before one of them, and knows what was synced."""

    def __init__(self, monkeypatch, cut_before):
        self._steps, self._cut_before = itertools.count(), cut_before
        self._unsynced = set()
        for name in ("open", "write", "rename", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name), getattr(self, f"_after_{name}", None)))
        monkeypatch.setattr(os, "fsync", self._counted(lambda _descriptor: None, self._after_fsync))
        monkeypatch.setattr(local, "sync_file_system", self._sync_all)

    def _step(self):
        if next(self._steps) >= self._cut_before:
            raise PowerCut

    def _counted(self, call, after):
        def counted(*args, **kwargs):
            self._step()
            result = call(*args, **kwargs)
            if after:
                after(*args)
            return result

        return counted

    def _sync_all(self, *_args):
        self._step()
        self._unsynced.clear()

    def _after_write(self, descriptor, _data):
        self._unsynced.add(os.fstat(descriptor).st_ino)

    def _after_fsync(self, descriptor):
        self._unsynced.discard(os.fstat(descriptor).st_ino)

    def lose_what_was_not_synced(self, root):
        for path in root.rglob("*"):
            if path.is_file() and path.stat().st_ino in self._unsynced:
                os.truncate(path, 0)


def publish(store, objects, expected, manifest):
    with store.session():
        for data in objects:
            store.put(ObjectName.of(data), data)
        store.replace_head(expected, manifest, MANIFESTS[manifest])


def final_objects(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("data/??/*")}


@pytest.mark.parametrize("kind", ["killed", "power cut"])
def test_publish_cut_at_any_step_leaves_the_old_or_the_new_head_and_only_whole_objects(tmp_path, kind):
    for cut_before in itertools.count():
        root = tmp_path / str(cut_before)
        with pytest.MonkeyPatch.context() as monkeypatch:
            Machine(monkeypatch, math.inf)
            publish(LocalStore(root), OLD, None, b"manifest one")
        with pytest.MonkeyPatch.context() as monkeypatch:
            machine = Machine(monkeypatch, cut_before)
            try:
                publish(LocalStore(root), NEW, b"manifest one", b"manifest two")
                is_done = True
            except PowerCut:
                is_done = False
        if kind == "power cut":
            machine.lose_what_was_not_synced(root)
        judge(root, is_done)
        again(root)
        if is_done:
            assert cut_before > 20
            break


def judge(root, is_done):
    objects = final_objects(root)
    for path, data in objects.items():
        assert ObjectName.of(data).path == path
    manifest = (root / MANIFEST).read_bytes()
    assert manifest == b"manifest two" if is_done else manifest in MANIFESTS
    assert (root / REFLOG).read_bytes() in MANIFESTS.values()
    if manifest == b"manifest two":
        assert set(objects.values()) == {*OLD, *NEW}
        assert (root / REFLOG).read_bytes() == b"reflog two"
    visible = [ObjectName.of(data).path in objects for data in NEW]
    assert visible == sorted(visible, reverse=True)  # in the order of the puts


def again(root):
    """The next publisher finishes, whatever it finds."""
    head = (root / MANIFEST).read_bytes()
    with pytest.MonkeyPatch.context() as monkeypatch:
        Machine(monkeypatch, math.inf)
        publish(LocalStore(root), NEW, head, b"manifest two")
    assert set(final_objects(root).values()) == {*OLD, *NEW}
    assert [path.name for path in (root / "data/txn").iterdir() if path.is_dir()] == []
