"""One commit: all of its changes or none, on top of whatever others published meanwhile."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from ducc.catalog.history import Tag
from ducc.catalog.reflog import RefKind
from ducc.catalog.split import SplitPolicy
from ducc.catalog.tree import Bind, entry_of
from ducc.catalog.writer import WrittenTree, write_tree
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.errors import DuccError
from ducc.image.digest import Digest
from ducc.publish import commit as commits
from ducc.publish.changes import BindTree, EditList, PutFile, PutLink, Remove
from ducc.publish.commit import ForeignHead, commit, published_trees
from ducc.publish.keys import generate_keys
from ducc.publish.repository import ForgedObject, NoRepository, Repository
from ducc.storage.base import MANIFEST, REFLOG, HeadMoved
from ducc.storage.memory import MemoryStore
from tests.memory import CLOCK, FQRN, counted, errors, file, new_repository, opened, refs, tree

HEX = [Digest.of(b"%d" % number).hex for number in range(300)]


def flat(number: int) -> bytes:
    return f"/.flat/{HEX[number][:2]}/{HEX[number]}".encode()


class Publisher:
    """A repository, and what one publisher does with it."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.repository, self.keys = new_repository(store=store)
        self.store = self.repository.store

    def colleague(self) -> "Publisher":
        """Another one, with a store object of its own, of the same repository."""
        other = object.__new__(Publisher)
        other.store = MemoryStore()
        other.store.objects, other.store.files = self.store.objects, self.store.files
        other.store._lock = self.store._lock
        other.repository, other.keys = Repository(FQRN, other.store), self.keys
        return other

    def tree(self, number: int) -> WrittenTree:
        name = b"%d" % number
        content = self.repository.put(b"x").digest
        root = tree({b"/etc/" + name: file(name, size=1)._replace(content=content)})
        return write_tree(root, self.repository.catalogs, SplitPolicy())

    def commit(self, *changes, at: float = CLOCK):
        with self.store.session():
            made = [change(self) if callable(change) else change for change in changes]
            return commit(self.repository, self.keys, made, lambda: at)

    def node(self, path: bytes):
        fresh = Repository(FQRN, self.store)
        return fresh.find(fresh.head(), path)

    def text(self, path: bytes) -> bytes:
        return self.repository.read(self.node(path))

    @property
    def manifest(self):
        return self.repository.head().manifest

    def tags(self) -> dict[str, Tag]:
        return {tag.name: tag for tag in self.repository.history(self.manifest).tags()}


def bind(number: int):
    return lambda publisher: BindTree(flat(number), publisher.tree(number))


@pytest.fixture
def publisher():
    publisher = Publisher()
    yield publisher
    assert errors(publisher.store, publisher.keys) == []


def test_a_commit_brings_trees_files_and_links(publisher):
    publisher.commit(bind(1), PutFile(b"/.metadata/r/i:1/manifest.json", b"{}"), PutLink(b"/r/i:1", b"../.flat/aa/bb"))
    bound = publisher.node(flat(1))
    assert isinstance(bound, Bind)
    assert bound.ref == publisher.tree(1).ref
    assert bound.entry == publisher.tree(1).entry._replace(name=HEX[1].encode())
    assert publisher.text(b"/.metadata/r/i:1/manifest.json") == b"{}"
    assert publisher.node(b"/r/i:1").symlink == b"../.flat/aa/bb"


def test_nobody_sees_anything_before_the_head_is_swapped(publisher):
    seen = []

    class Watching(MemoryStore):
        def put(self, name, data):
            seen.append(dict(self.files))
            super().put(name, data)

    other = Publisher(Watching())
    before = dict(other.store.files)
    other.commit(bind(1), PutFile(b"/r/x", b"x"))
    assert seen
    assert all(files == before for files in seen)
    assert errors(other.store, other.keys) == []


def test_each_commit_is_the_next_revision_and_names_its_predecessor(publisher):
    roots = [publisher.manifest.root_hash]
    for number in range(4):
        head = publisher.commit(PutFile(b"/r/%d" % number, b"x"))
        assert head.manifest.revision == publisher.manifest.revision == number + 2
        properties = opened(publisher.repository.catalogs, head.root).properties()
        assert properties[b"revision"] == b"%d" % (number + 2)
        assert properties[b"previous_revision"] == roots[-1].hex().encode()
        assert b"TTL" in properties
        roots.append(head.root.digest)


def test_what_was_published_before_stays(publisher):
    publisher.commit(bind(1), PutFile(b"/r/one", b"1"))
    publisher.commit(bind(2), PutFile(b"/r/two", b"2"))
    assert publisher.text(b"/r/one") == b"1"
    assert publisher.node(flat(1)).ref == publisher.tree(1).ref


def test_whatever_stood_at_a_path_gives_way(publisher):
    publisher.commit(PutFile(b"/r/a", b"1"), PutLink(b"/r/b", b"x"), PutFile(b"/r/c/d", b"2"))
    publisher.commit(PutLink(b"/r/a", b"y"), PutFile(b"/r/b", b"3"), PutFile(b"/r/c", b"4"))
    assert publisher.node(b"/r/a").symlink == b"y"
    assert [publisher.text(path) for path in (b"/r/b", b"/r/c")] == [b"3", b"4"]


def test_of_two_changes_of_one_path_the_last_holds(publisher):
    publisher.commit(PutFile(b"/r/a", b"1"), PutFile(b"/r/a", b"2"), PutFile(b"/r/b", b"3"), Remove(b"/r/b"))
    assert publisher.text(b"/r/a") == b"2"
    assert publisher.node(b"/r/b") is None


def test_what_is_removed_is_gone_and_nothing_else(publisher):
    publisher.commit(bind(1), bind(2), PutFile(b"/r/a/b", b"1"), PutFile(b"/r/c", b"2"))
    publisher.commit(Remove(flat(1)), Remove(b"/r/a"), Remove(b"/r/none/at/all"))
    assert publisher.node(flat(1)) is None
    assert publisher.node(b"/r/a/b") is None
    assert publisher.node(b"/r/none") is None
    assert isinstance(publisher.node(flat(2)), Bind)
    assert publisher.text(b"/r/c") == b"2"


def test_an_empty_commit_is_a_revision_with_the_same_content(publisher):
    publisher.commit(PutFile(b"/r/a", b"1"))
    publisher.commit()
    assert publisher.manifest.revision == 3
    assert publisher.text(b"/r/a") == b"1"


def test_new_entries_bear_the_time_of_the_commit_and_unchanged_ones_theirs(publisher):
    publisher.commit(PutFile(b"/r/a", b"1"), at=CLOCK)
    publisher.commit(PutFile(b"/r/b", b"1"), at=CLOCK + 100)
    assert [entry_of(publisher.node(path)).mtime for path in (b"/r/a", b"/r/b")] == [int(CLOCK), int(CLOCK + 100)]


# --- where catalogs begin ------------------------------------------------------------------


def test_bound_trees_lie_two_catalogs_deep_and_each_registry_has_its_own(publisher):
    head = publisher.commit(bind(1), PutLink(b"/reg.example/i:1", b"x"), PutFile(b"/.metadata/reg.example/i:1/r", b"x"))
    shard = flat(1).rpartition(b"/")[0]
    places = set(refs(publisher.repository.catalogs, head.root))
    assert {b"", b"/.flat", shard, b"/reg.example", b"/.metadata", b"/.metadata/reg.example"} == places


def test_hundreds_of_changes_are_one_revision_with_right_counters(publisher):
    changes = [bind(number) for number in range(250)]
    files = [PutFile(b"/.metadata/r/i:%d/record.json" % number, b"%d" % number) for number in range(250)]
    head = publisher.commit(*changes, *files, *(PutLink(b"/r/i:%d" % number, b"x") for number in range(250)))
    assert head.manifest.revision == 2
    counters = counted(publisher.repository.catalogs, head.root)
    assert counters.symlink == 250
    assert all(isinstance(publisher.node(flat(number)), Bind) for number in (0, 100, 249))
    assert len(publisher.tags()) == 252


def test_counters_stay_right_over_many_revisions_whose_catalogs_were_mostly_not_opened(publisher):
    for number in range(12):
        fresh = publisher.colleague()
        gone = [Remove(flat(number - 3)), Remove(b"/r%d" % (number % 4))] if number % 3 == 0 else []
        head = fresh.commit(bind(number), PutFile(b"/r%d/x/%d" % (number % 5, number), b"x"), *gone)
        counted(fresh.repository.catalogs, head.root)


def test_a_commit_rewrites_only_the_catalogs_on_the_way_to_its_changes(publisher):
    first = publisher.commit(*(bind(number) for number in range(50)))
    second = publisher.commit(PutFile(b"/r/a", b"1"))
    before, after = (refs(publisher.repository.catalogs, head.root) for head in (first, second))
    assert {path for path in after if before.get(path) != after[path]} == {b"", b"/r"}


# --- tags and reflog -----------------------------------------------------------------------


def test_every_tree_has_a_tag_of_revision_zero_and_the_trunk_two(publisher):
    first = publisher.commit(bind(1))
    second = publisher.commit(bind(2))
    tags = publisher.tags()
    for number in (1, 2):
        ref = publisher.tree(number).ref
        tag = tags[f"tree-{ref}"]
        assert (tag.hash, tag.size, tag.revision) == (ref.digest, ref.size, 0)
    assert (tags["trunk"].hash, tags["trunk"].revision) == (second.root.digest, 3)
    assert (tags["trunk-previous"].hash, tags["trunk-previous"].revision) == (first.root.digest, 2)


def test_a_trees_tag_keeps_the_time_at_which_it_first_came(publisher):
    publisher.commit(bind(1))
    publisher.commit(bind(1), at=CLOCK + 500)
    assert publisher.tags()[f"tree-{publisher.tree(1).ref}"].timestamp == int(CLOCK)


def test_trees_are_named_once_however_often_they_are_bound():
    publisher = Publisher()
    written = publisher.tree(1)
    changes = [BindTree(flat(1), written), PutFile(b"/r/x", b""), BindTree(flat(2), written)]
    assert published_trees(changes) == [written.ref]


def test_the_reflog_lists_every_root_there_ever_was(publisher):
    expected = {(publisher.manifest.root_hash, RefKind.CATALOG)}
    for number in range(3):
        head = publisher.commit(bind(number))
        manifest = head.manifest
        expected |= {(head.root.digest, RefKind.CATALOG), (publisher.tree(number).ref.digest, RefKind.CATALOG)}
        expected |= {(manifest.history, RefKind.HISTORY), (manifest.certificate, RefKind.CERTIFICATE)}
        expected |= {(manifest.metainfo, RefKind.METAINFO)}
        assert ObjectName.of(publisher.store.read_file(REFLOG)).digest == manifest.reflog
    listed = {(ref.digest, ref.kind) for ref in publisher.repository.reflog().refs()}
    assert expected <= listed
    assert len(listed) == len(expected) + 1  # the first revision's tag database


# --- time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-1, -3600, -(10**9)])
def test_a_clock_that_steps_back_never_makes_a_manifest_older_than_its_predecessor(publisher, step):
    publisher.commit(PutFile(b"/r/a", b"1"), at=CLOCK)
    head = publisher.commit(PutFile(b"/r/b", b"1"), at=CLOCK + step)
    assert head.manifest.timestamp == int(CLOCK)
    assert head.manifest.revision == 3


def test_time_goes_on_once_the_clock_has_caught_up(publisher):
    for at, expected in ((CLOCK, CLOCK), (CLOCK - 50, CLOCK), (CLOCK + 50, CLOCK + 50)):
        assert publisher.commit(at=at).manifest.timestamp == int(expected)


# --- publishers that race ------------------------------------------------------------------


def overtake(monkeypatch, publisher, *rivals):
    """Let each of *rivals* publish just before *publisher* would swap the head."""
    waiting, swap = list(rivals), publisher.store.replace_head

    def replace_head(*arguments):
        if waiting:
            waiting.pop(0)()
        swap(*arguments)

    monkeypatch.setattr(publisher.store, "replace_head", replace_head)


def test_who_is_overtaken_loses_nothing_and_overwrites_nothing(monkeypatch, publisher):
    rival = publisher.colleague()
    overtake(monkeypatch, publisher, lambda: rival.commit(bind(2), PutFile(b"/r/theirs", b"t")))
    head = publisher.commit(bind(1), PutFile(b"/r/ours", b"o"))
    assert head.manifest.revision == 3
    assert [publisher.text(path) for path in (b"/r/ours", b"/r/theirs")] == [b"o", b"t"]
    assert all(isinstance(publisher.node(flat(number)), Bind) for number in (1, 2))
    assert {f"tree-{publisher.tree(number).ref}" for number in (1, 2)} <= publisher.tags().keys()
    properties = opened(publisher.repository.catalogs, head.root).properties()
    assert properties[b"previous_revision"] == publisher.tags()["trunk-previous"].hash.hex().encode()


def test_who_is_overtaken_again_and_again_tries_again(monkeypatch, publisher):
    rivals = [publisher.colleague() for _ in range(7)]
    steps = [lambda n=n, one=one: one.commit(PutFile(b"/r/%d" % n, b"x")) for n, one in enumerate(rivals)]
    overtake(monkeypatch, publisher, *steps)
    assert publisher.commit(PutFile(b"/r/ours", b"o")).manifest.revision == 9
    assert all(publisher.node(b"/r/%d" % number) for number in range(7))


def test_who_is_always_overtaken_gives_up_and_has_changed_nothing(monkeypatch, publisher):
    rivals = [publisher.colleague() for _ in range(commits.ATTEMPTS)]
    overtake(monkeypatch, publisher, *(rival.commit for rival in rivals))
    with pytest.raises(HeadMoved, match=FQRN):
        publisher.commit(PutFile(b"/r/ours", b"o"))
    assert publisher.node(b"/r/ours") is None
    assert publisher.manifest.revision == 1 + commits.ATTEMPTS


def test_many_publishers_at_once_make_one_line_of_revisions(publisher):
    def work(number: int) -> list[int]:
        mine = publisher.colleague()
        changes = [(PutFile(b"/r%d/%d" % (number, n), b"x"), bind(number * 4 + n)) for n in range(4)]
        return [mine.commit(*these).manifest.revision for these in changes]

    with ThreadPoolExecutor(4) as pool:
        revisions = [one for found in pool.map(work, range(4)) for one in found]
    assert sorted(revisions) == list(range(2, 18))
    assert all(publisher.node(b"/r%d/%d" % (number, n)) for number in range(4) for n in range(4))
    assert len(publisher.tags()) == 18
    counted(publisher.repository.catalogs, publisher.repository.head().root)


# --- what a repository is read from --------------------------------------------------------


def test_there_is_no_repository_in_an_empty_store():
    with pytest.raises(NoRepository, match="ducc init"):
        Repository(FQRN, MemoryStore())


def test_a_root_object_of_other_bytes_is_not_believed():
    publisher = Publisher()
    name = ObjectName(publisher.manifest.history, Suffix.HISTORY)
    publisher.store.objects[name] = publisher.store.objects[name] + b"x"
    with pytest.raises(ForgedObject):
        publisher.commit(PutFile(b"/r/a", b"1"))


def test_a_manifest_of_another_repository_is_not_built_upon():
    ours, (other, _) = Publisher(), new_repository("other.example.org")
    ours.store.files[MANIFEST] = other.store.read_file(MANIFEST)
    ours.store.objects.update(other.store.objects)
    with pytest.raises(NoRepository, match=r"other\.example\.org"):
        ours.commit(PutFile(b"/r/a", b"1"))


def test_a_manifest_whose_text_was_changed_is_not_built_upon():
    publisher = Publisher()
    raw = publisher.store.files[MANIFEST]
    publisher.store.files[MANIFEST] = raw.replace(b"\nS1\n", b"\nS9\n")
    assert publisher.store.files[MANIFEST] != raw
    with pytest.raises(DuccError):
        publisher.commit(PutFile(b"/r/a", b"1"))


def test_a_lost_reflog_is_begun_anew_by_the_next_commit():
    publisher = Publisher()
    publisher.commit(bind(1))
    del publisher.store.files[REFLOG]
    head = publisher.commit(bind(2))
    listed = {ref.digest for ref in publisher.repository.reflog().refs()}
    assert {head.root.digest, publisher.tree(2).ref.digest, head.manifest.certificate} <= listed


def test_nothing_is_published_on_top_of_what_other_keys_signed(publisher: Publisher):
    other, _ = generate_keys(FQRN, datetime.now(UTC))
    before = publisher.store.files[MANIFEST]
    with publisher.store.session(), pytest.raises(ForeignHead):
        commit(publisher.repository, other, [PutFile(b"/x/y", b"")])
    assert publisher.store.files[MANIFEST] == before


def test_two_publishers_add_to_one_list(publisher: Publisher):
    path, colleague = b"/.layers/aa/bb/.metadata/origin.json", publisher.colleague()
    publisher.commit(EditList(path, "origin", ("b", "a")))
    colleague.commit(EditList(path, "origin", ("c", "a")))
    assert json.loads(publisher.text(path)) == {"origin": ["a", "b", "c"]}


def test_what_goes_from_a_list_leaves_what_others_added(publisher: Publisher):
    path, colleague = b"/.layers/aa/bb/.metadata/origin.json", publisher.colleague()
    publisher.commit(EditList(path, "origin", ("a", "b", "c")))
    colleague.commit(EditList(path, "origin", without=("b", "z")))
    colleague.commit(EditList(b"/.layers/aa/cc/.metadata/origin.json", "origin", without=("b",)))
    assert json.loads(publisher.text(path)) == {"origin": ["a", "c"]}
    assert publisher.node(b"/.layers/aa/cc/.metadata/origin.json") is None


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[]", b"{}", b'{"origin": 3}', b'{"origin": [3]}', b"\xff", b"[" * 100_000, b"null"]
)
def test_a_damaged_list_is_begun_anew_and_costs_the_others_nothing(publisher: Publisher, damaged: bytes, caplog):
    path, other = b"/.layers/aa/bb/.metadata/origin.json", b"/.layers/aa/cc/.metadata/origin.json"
    publisher.commit(PutFile(path, damaged))
    publisher.commit(EditList(path, "origin", ("a",)), EditList(other, "origin", ("b",)))
    assert json.loads(publisher.text(path)) == {"origin": ["a"]}
    assert json.loads(publisher.text(other)) == {"origin": ["b"]}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_list_whose_object_is_lost_is_begun_anew(publisher: Publisher, caplog):
    path = b"/.layers/aa/bb/.metadata/origin.json"
    publisher.commit(EditList(path, "origin", ("lost",)))
    name = ObjectName(publisher.node(path).content)
    lost = publisher.store.objects.pop(name)
    publisher.commit(EditList(path, "origin", ("a",)))
    publisher.store.objects[name] = lost  # the revision before still wants it
    assert json.loads(publisher.text(path)) == {"origin": ["a"]}
    assert len(caplog.records) == 1
