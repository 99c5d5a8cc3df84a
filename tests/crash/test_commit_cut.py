"""A commit, cut at every write: readers see the old revision or the new one, whole, and doing it again finishes it."""

import itertools

import pytest

from ducc.catalog.split import SplitPolicy
from ducc.catalog.writer import write_tree
from ducc.cvmfs.objectname import ObjectName
from ducc.publish.changes import BindTree, PutFile, PutLink, Remove
from ducc.publish.commit import commit
from ducc.publish.repository import Repository
from ducc.storage.base import MANIFEST, REFLOG, HeadMoved
from ducc.storage.memory import MemoryStore
from tests.memory import CLOCK, FQRN, counted, errors, file, forgetful, new_repository, rows, tree


class PowerCut(BaseException):
    """Not an Exception: nobody is to handle it."""


class CutStore(MemoryStore):
    """Each object and each root file becomes visible by a step of its own; before one of them the power goes.

    *eager* stores make an object visible when it is put, others when they are flushed, in the order of the puts.
    """

    def __init__(self, cut_before: int, eager: bool) -> None:
        super().__init__()
        self.steps, self._cut_before, self._eager = 0, cut_before, eager

    def _step(self) -> None:
        if self.steps >= self._cut_before:
            raise PowerCut
        self.steps += 1

    def put(self, name: ObjectName, data: bytes | bytearray | memoryview) -> None:
        super().put(name, data)
        if self._eager:
            self.flush()

    def flush(self) -> None:
        for name, data in list(self._staged.items()):
            self._step()
            self.objects[name] = data
            del self._staged[name]

    def replace_head(self, expected: bytes | None, manifest: bytes, reflog: bytes) -> None:
        self.flush()
        if self.files.get(MANIFEST) != expected:
            raise HeadMoved("overtaken")
        for name, data in ((REFLOG, reflog), (MANIFEST, manifest)):
            self._step()
            self.files[name] = data


NEVER = 10**9
TREES = [{b"/usr/%d/%d" % (one, two): two for one in range(3) for two in range(3 + n)} for n in range(2)]


def publish_something(store: MemoryStore, at: float = CLOCK):
    """Two trees that share catalogs, files, links and a removal; returns the new head and the trees' names."""
    repository = Repository(FQRN, store)
    _, keys = new_repository()
    with store.session():
        written = []
        for paths in TREES:
            content = {number: repository.put(b"%d" % number).digest for number in range(5)}
            nodes = {path: file(path[-1:], size=1)._replace(content=content[number]) for path, number in paths.items()}
            written.append(write_tree(tree(nodes), repository.catalogs, SplitPolicy(heavy=4, light=2)))
        binds = [BindTree(b"/.flat/%02d/%d" % (n, n), one) for n, one in enumerate(written)]
        files = [PutFile(b"/.metadata/r/i:1/record.json", b"{}"), PutLink(b"/r/i:1", b"../.flat/00/0")]
        head = commit(repository, keys, [*binds, *files, Remove(b"/r/old")], lambda: at)
    return head, [one.ref for one in written]


def before(store: MemoryStore) -> MemoryStore:
    repository, keys = new_repository(store=store)
    with store.session():
        commit(repository, keys, [PutFile(b"/r/old", b"old"), PutFile(b"/r/kept", b"kept")], lambda: CLOCK - 9)
    return store


def visible(store: MemoryStore) -> MemoryStore:
    """What is left after the cut: nothing that was not visible."""
    left = MemoryStore()
    left.objects, left.files = dict(store.objects), dict(store.files)
    return left


def content(store: MemoryStore):
    repository = Repository(FQRN, store)
    head = repository.head()
    catalogs = forgetful(repository.catalogs)
    return head.manifest.revision, rows(repository.tree(head), catalogs)


@pytest.mark.parametrize("eager", [False, True], ids=["staged", "eager"])
def test_a_commit_cut_at_any_write_leaves_the_old_or_the_new_revision_and_can_be_done_again(eager):
    _, keys = new_repository()
    old = content(before(MemoryStore()))
    whole = before(MemoryStore())
    head, trees = publish_something(whole)
    new = content(whole)
    assert old != new
    seen = []
    for cut in itertools.count():
        store = CutStore(NEVER, eager)
        before(store)
        store.steps, store._cut_before = 0, cut
        try:
            publish_something(store)
        except PowerCut:
            left = visible(store)
        else:
            break
        seen.append(content(left))
        assert seen[-1] in (old, new)
        assert errors(left, keys) == []
        again, again_trees = publish_something(left)
        assert again_trees == trees
        assert errors(left, keys) == []
        assert content(left)[1] == new[1]
        if seen[-1] == old:
            assert again.root == head.root
            counted(Repository(FQRN, left).catalogs, again.root)
    assert len(seen) > 20
    assert set(map(str, seen)) == {str(old)}  # the very last write is the one that counts
    assert content(store) == new


def test_the_manifest_is_the_last_write_and_the_reflog_the_one_before_it():
    order = []

    class Watching(CutStore):
        def _step(self):
            order.append((set(self.objects), dict(self.files)))
            super()._step()

    store = before(Watching(NEVER, eager=False))
    order.clear()
    publish_something(store)
    objects, files = order[-1]
    assert objects == set(store.objects)
    assert files[REFLOG] == store.files[REFLOG]
    assert files[MANIFEST] != store.files[MANIFEST]


def test_trees_of_a_commit_that_was_cut_are_found_and_used_by_the_next():
    store = before(CutStore(NEVER, eager=True))
    store.steps = 0
    publish_something(store)
    whole = store.steps
    again = before(CutStore(NEVER, eager=True))
    again.steps, again._cut_before = 0, whole - 1
    with pytest.raises(PowerCut):
        publish_something(again)
    again.steps, again._cut_before, again._staged = 0, NEVER, {}
    publish_something(again)
    assert again.steps <= 3  # the reflog, the manifest, and at most the tag database
