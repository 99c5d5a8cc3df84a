import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ducc.client.attachments import StaleInode
from ducc.client.cache import Cache
from ducc.client.head import NoRepository
from ducc.client.inodes import ROOT_INODE
from ducc.client.repository import CannotResume, Repository
from ducc.cvmfs.manifest import BadManifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import BadSignature
from ducc.cvmfs.whitelist import WhitelistExpired
from ducc.storage.base import MANIFEST, WHITELIST
from ducc.storage.memory import MemoryStore
from tests import signing
from tests.memory import directory_entry, symlink
from tests.unit.client.publisher import Publisher


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def publisher(store: MemoryStore) -> Publisher:
    return Publisher(store)


@pytest.fixture
def open_repository(store: MemoryStore, tmp_path: Path) -> Iterator["Opener"]:
    opener = Opener(store, tmp_path)
    yield opener
    for repository in opener.opened:
        repository.close()


class Opener:
    def __init__(self, store: MemoryStore, directory: Path) -> None:
        self.store, self.directory = store, directory
        self.opened: list[Repository] = []

    def __call__(self, days_later: int = 0, master_number: int = 0) -> Repository:
        now = signing.NOW + timedelta(days=days_later)
        key = signing.keys(signing.FQRN, master_number)[0].master_public_key
        repository = Repository.open(signing.FQRN, self.store, Cache(self.directory), [key], lambda: now)
        self.opened.append(repository)
        return repository


def inode(repository: Repository, path: bytes) -> int:
    node = repository._node(path)
    assert node is not None, path
    return node.inode


def names(repository: Repository, path: bytes) -> set[bytes]:
    return {entry.name for entry in repository.listing(path)}


# --- trust ---------------------------------------------------------------------------------


def test_an_empty_store_has_no_repository(open_repository: Opener) -> None:
    with pytest.raises(NoRepository):
        open_repository()


def test_a_manifest_changed_by_one_bit_is_not_believed(
    publisher: Publisher, store: MemoryStore, open_repository: Opener
) -> None:
    publisher.publish({})
    raw = store.files[MANIFEST]
    store.files[MANIFEST] = raw.replace(b"\nS1\n", b"\nS9\n")
    with pytest.raises(BadManifest):
        open_repository()
    store.files[MANIFEST] = raw[:-1] + bytes([raw[-1] ^ 1])
    with pytest.raises(BadSignature):
        open_repository()


def test_only_the_right_master_key_and_an_unexpired_whitelist_are_believed(
    publisher: Publisher, open_repository: Opener
) -> None:
    publisher.publish({})
    with pytest.raises(WhitelistExpired):
        open_repository(days_later=31)
    with pytest.raises(Exception, match="whitelist"):
        open_repository(master_number=1)
    open_repository()


def test_without_its_whitelist_it_is_no_repository(
    publisher: Publisher, store: MemoryStore, open_repository: Opener
) -> None:
    publisher.publish({})
    del store.files[WHITELIST]
    with pytest.raises(NoRepository, match=WHITELIST):
        open_repository()


# --- paths ---------------------------------------------------------------------------------


def test_paths_lead_through_nested_catalogs_and_binds_and_back(publisher: Publisher, open_repository: Opener) -> None:
    image = {
        b"/etc/motd": publisher.file(b"motd", b"hello"),
        b"/usr/bin/sh": publisher.file(b"sh", b"#!"),
        b"/usr/share/big": publisher.chunked(b"big", b"a" * 10, b"b" * 20),
    }
    bound = publisher.bind(image, b"image", nested=[b"/usr", b"/usr/share"])
    publisher.publish(
        {
            b"/flat/aa/image": bound,
            b"/flat/bb/image": bound,
            b"/link": symlink(b"link", b"flat/aa"),
            b"/plain/a/b/c": publisher.file(b"c", b"deep"),
        },
        nested=[b"/flat", b"/flat/bb", b"/plain/a"],
    )
    repository = open_repository()
    for place in (b"/flat/aa/image", b"/flat/bb/image"):
        assert repository.read(place + b"/etc/motd") == b"hello"
        assert repository.read(place + b"/usr/share/big") == b"a" * 10 + b"b" * 20
        assert names(repository, place) == {b"etc", b"usr"}
        assert names(repository, place + b"/usr") == {b"bin", b"share"}
    assert repository.read(b"/plain/a/b/c") == b"deep"
    assert names(repository, b"") == {b"flat", b"link", b"plain"}
    assert repository.entry(b"/link/image") is None  # links are not followed
    assert repository.entry(b"/flat/aa/image/etc/motd/x") is None
    assert repository.entry(b"/flat/cc") is None
    assert repository.entry(b"/flat/aa/image/.cvmfscatalog") is None
    marker = repository.entry(b"/flat/.cvmfscatalog")
    assert marker is not None
    assert marker.hidden


def test_one_tree_at_two_places_has_two_sets_of_inodes(publisher: Publisher, open_repository: Opener) -> None:
    bound = publisher.bind({b"/a/b": publisher.file(b"b")}, b"image")
    publisher.publish({b"/x/image": bound, b"/y/image": bound})
    repository = open_repository()
    paths = [place + path for place in (b"/x/image", b"/y/image") for path in (b"", b"/a", b"/a/b")]
    assert len({inode(repository, path) for path in paths}) == 6
    for path in paths:
        node = repository.tree.node(inode(repository, path))
        assert node.row.entry.name == path.rpartition(b"/")[2]


def test_every_directory_knows_its_parent(publisher: Publisher, open_repository: Opener) -> None:
    bound = publisher.bind({b"/a/b/c": publisher.file(b"c")}, b"image", nested=[b"/a"])
    publisher.publish({b"/x/image": bound}, nested=[b"/x"])
    repository = open_repository()
    path = b"/x/image/a/b"
    while path:
        repository.entry(path + b"/-")
        above = path.rpartition(b"/")[0]
        assert repository.tree.parent(inode(repository, path)) == inode(repository, above), path
        path = above
    assert repository.tree.parent(ROOT_INODE) == ROOT_INODE


def test_hard_links_of_a_directory_share_an_inode_and_others_do_not(
    publisher: Publisher, open_repository: Opener
) -> None:
    linked = {
        b"/d/%d" % number: publisher.file(b"%d" % number, b"same", link_group=1 + number // 3) for number in range(6)
    }
    publisher.publish({**linked, b"/d/alone": publisher.file(b"alone", b"same")})
    repository = open_repository()
    found = [inode(repository, path) for path in linked]
    assert found[0] == found[1] == found[2] != found[3] == found[4] == found[5]
    assert inode(repository, b"/d/alone") not in found
    listing = repository.tree.listing(inode(repository, b"/d"))
    listed = {node.row.entry.name: node.inode for _, node in repository.tree.page(listing, 0, 100) if node}
    assert listed == {path[3:]: number for path, number in zip(linked, found, strict=True)} | {
        b"alone": inode(repository, b"/d/alone")
    }
    entry = repository.entry(b"/d/0")
    assert entry is not None
    assert entry.linkcount == 3


def test_a_big_directory_is_listed_once_and_whole(publisher: Publisher, open_repository: Opener) -> None:
    entry = publisher.file(b"", b"x")
    publisher.publish({b"/d/%05d" % number: entry._replace(name=b"%05d" % number) for number in range(5000)})
    listed = [entry.name for entry in open_repository().listing(b"/d")]
    assert len(listed) == 5000
    assert set(listed) == {b"%05d" % number for number in range(5000)}


# --- revisions -----------------------------------------------------------------------------


def test_a_new_revision_replaces_names_and_keeps_the_inodes_of_what_is_the_same(
    publisher: Publisher, open_repository: Opener
) -> None:
    same = publisher.file(b"same", b"same")
    publisher.publish(
        {b"/d/same": same, b"/d/changed": publisher.file(b"changed", b"old"), b"/d/gone": publisher.file(b"gone")},
        nested=[b"/d"],
    )
    repository = open_repository()
    before = {name: inode(repository, b"/d/" + name) for name in (b"same", b"changed", b"gone")}
    directory = inode(repository, b"/d")
    publisher.publish(
        {
            b"/d/0": publisher.file(b"0"),
            b"/d/same": same._replace(mtime=99),
            b"/d/changed": publisher.file(b"changed", b"new"),
        },
        nested=[b"/d"],
    )
    assert repository.read(b"/d/changed") == b"old"
    assert repository.refresh()
    assert names(repository, b"/d") == {b"0", b"same", b"changed"}
    assert repository.read(b"/d/changed") == b"new"
    assert inode(repository, b"/d") == directory
    assert inode(repository, b"/d/same") == before[b"same"]
    assert repository.tree.node(before[b"same"]).row.entry.mtime == 99
    assert inode(repository, b"/d/changed") != before[b"changed"]
    assert inode(repository, b"/d/0") not in before.values()
    for name in (b"changed", b"gone"):
        with pytest.raises(StaleInode):
            repository.tree.node(before[name])


def test_a_plan_tells_what_the_kernel_must_forget_and_nothing_else(
    publisher: Publisher, open_repository: Opener
) -> None:
    many = {b"/d/e/%d" % number: publisher.file(b"%d" % number) for number in range(50)}
    publisher.publish({**many, b"/d/x": publisher.file(b"x", b"1"), b"/d/y": publisher.file(b"y")}, nested=[b"/d"])
    repository = open_repository()
    assert len(names(repository, b"/d/e")) == 50
    directory, deep, kept = (inode(repository, path) for path in (b"/d", b"/d/e", b"/d/y"))
    publisher.publish(
        {
            **many,
            b"/d/e/new": publisher.file(b"new"),
            b"/d/x": publisher.file(b"x", b"2"),
            b"/d/y": publisher.file(b"y", mode=stat.S_IFREG | 0o600),
        },
        nested=[b"/d"],
    )
    manifest = repository.newer_manifest()
    assert manifest is not None
    plan = repository.plan(manifest)
    assert set(plan.names) == {(directory, b"x"), (deep, b"new")}
    assert kept in plan.inodes
    assert set(plan.inodes) <= {ROOT_INODE, directory, kept}


def test_directories_keep_their_inodes_when_catalogs_are_split_otherwise(
    publisher: Publisher, open_repository: Opener
) -> None:
    content = {b"/d/e/f": publisher.file(b"f", b"content")}
    publisher.publish(content, nested=[b"/d"])
    repository = open_repository()
    before = [inode(repository, path) for path in (b"/d", b"/d/e", b"/d/e/f")]
    publisher.publish(content)
    assert repository.refresh()
    assert repository.read(b"/d/e/f") == b"content"
    assert inode(repository, b"/d") == before[0]
    with pytest.raises(StaleInode):
        repository.tree.node(before[1])
    publisher.publish(content, nested=[b"/d/e"])
    assert repository.refresh()
    assert repository.read(b"/d/e/f") == b"content"


def test_a_tree_bound_elsewhere_appears_and_one_that_is_gone_is_gone(
    publisher: Publisher, open_repository: Opener
) -> None:
    one = publisher.bind({b"/file": publisher.file(b"file", b"one")}, b"image")
    two = publisher.bind({b"/file": publisher.file(b"file", b"two"), b"/more": publisher.file(b"more")}, b"image")
    publisher.publish({b"/a/image": one, b"/b/image": one}, nested=[b"/a", b"/b"])
    repository = open_repository()
    assert repository.read(b"/a/image/file") == repository.read(b"/b/image/file") == b"one"
    kept, gone = inode(repository, b"/a/image"), inode(repository, b"/b/image/file")
    publisher.publish({b"/a/image": two}, nested=[b"/a"])
    assert repository.refresh()
    assert repository.read(b"/a/image/file") == b"two"
    assert inode(repository, b"/a/image") == kept
    assert names(repository, b"") == {b"a"}
    with pytest.raises(StaleInode):
        repository.tree.node(gone)


def test_an_older_or_equal_revision_is_never_followed(
    publisher: Publisher, store: MemoryStore, open_repository: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish({b"/1": publisher.file(b"1")})
    first = store.files[MANIFEST]
    publisher.publish({b"/2": publisher.file(b"2")})
    repository = open_repository()
    store.files[MANIFEST] = first
    with pytest.raises(BadManifest):
        repository.refresh()
    publisher.publish({b"/3": publisher.file(b"3")}, revision=2)
    assert not repository.refresh()
    publisher.publish({b"/4": publisher.file(b"4")}, revision=1)
    assert not repository.refresh()
    assert names(repository, b"") == {b"2"}
    publisher.publish({b"/5": publisher.file(b"5")}, revision=3)
    assert repository.refresh()
    assert names(repository, b"") == {b"5"}


def test_a_revision_whose_catalogs_cannot_be_had_changes_nothing(
    publisher: Publisher, store: MemoryStore, open_repository: Opener
) -> None:
    publisher.publish({b"/d/old": publisher.file(b"old")}, nested=[b"/d"])
    repository = open_repository()
    assert names(repository, b"/d") == {b"old"}
    manifest = publisher.publish({b"/d/new": publisher.file(b"new")}, nested=[b"/d"])
    root = ObjectName(manifest.root_hash, Suffix.CATALOG)
    taken = store.objects.pop(root)
    with pytest.raises(Exception, match=str(root)):
        repository.refresh()
    assert names(repository, b"/d") == {b"old"}
    store.objects[root] = taken
    assert repository.refresh()
    assert names(repository, b"/d") == {b"new"}


def test_a_listing_begun_in_one_revision_goes_on_in_the_next(publisher: Publisher, open_repository: Opener) -> None:
    first = {b"/d/%02d" % number: publisher.file(b"%02d" % number) for number in range(20)}
    publisher.publish(first)
    repository = open_repository()
    listing = repository.tree.listing(inode(repository, b"/d"))
    page = repository.tree.page(listing, 0, 10)
    publisher.publish({path: entry for path, entry in first.items() if path not in (b"/d/03", b"/d/15")})
    assert repository.refresh()
    rest = repository.tree.page(listing, page[-1][0], 100)
    assert [node.row.entry.name if node else None for _, node in rest] == [
        None if number == 15 else b"%02d" % number for number in range(10, 20)
    ]
    assert all(node.inode == inode(repository, b"/d/" + node.row.entry.name) for _, node in rest if node)


def test_a_plan_that_was_overtaken_is_not_applied(publisher: Publisher, open_repository: Opener) -> None:
    publisher.publish({b"/d/e": publisher.file(b"e", b"old")}, nested=[b"/d"])
    repository = open_repository()
    publisher.publish({b"/d/e": publisher.file(b"e", b"new")}, nested=[b"/d"])
    manifest = repository.newer_manifest()
    assert manifest is not None
    plan = repository.plan(manifest)
    assert repository.read(b"/d/e") == b"old"  # attaches a catalog that the plan does not know
    assert not repository.apply(plan, manifest)
    assert repository.apply(repository.plan(manifest), manifest)
    assert repository.read(b"/d/e") == b"new"


def test_many_revisions_leave_nothing_behind(publisher: Publisher, open_repository: Opener) -> None:
    publisher.publish({})
    repository = open_repository()
    directory = None
    for number in range(30):
        publisher.publish(
            {b"/d/%d" % number: publisher.file(b"x"), b"/d/same": publisher.file(b"same")}, nested=[b"/d"]
        )
        assert repository.refresh()
        assert len(names(repository, b"/d")) == 2
        directory = directory or inode(repository, b"/d")
        assert inode(repository, b"/d") == directory
    attachment = repository.tree.root.children[b"/d"]
    assert len(attachment.numbering._spans) <= 4
    assert len(repository.catalogs._contents) == 2 * (1 + 8)  # with what a listing that has begun may still need
    assert not repository.tree.leaving
    assert not repository.tree.former


def test_what_the_kernel_still_has_stays_readable_until_it_is_dropped(
    publisher: Publisher, open_repository: Opener
) -> None:
    old = {b"/d/changed": publisher.file(b"changed", b"old"), b"/d/gone": publisher.file(b"gone", b"gone")}
    publisher.publish({**old, b"/image": publisher.bind({b"/program": publisher.file(b"program", b"run")}, b"image")})
    repository = open_repository()
    inodes = {path: inode(repository, path) for path in (b"/d/changed", b"/d/gone", b"/image/program", b"/d")}
    publisher.publish({b"/d/changed": publisher.file(b"changed", b"new")})
    manifest = repository.newer_manifest()
    assert manifest is not None
    assert repository.apply(repository.plan(manifest), manifest)
    rows = {path: repository.tree.node(number).row for path, number in inodes.items()}  # before anybody is asked
    known = {inodes[b"/d/changed"], inodes[b"/image/program"]}
    repository.let_go(lambda number: number in known)
    for path in (b"/d/changed", b"/image/program"):
        assert repository.tree.node(inodes[path]).row == rows[path]
    with pytest.raises(StaleInode):
        repository.tree.node(inodes[b"/d/gone"])
    repository.forgotten([inodes[b"/d/changed"], inodes[b"/image/program"], 12345])
    with pytest.raises(StaleInode):
        repository.tree.node(inodes[b"/d/changed"])


def test_another_process_goes_on_under_the_same_inodes(
    publisher: Publisher, open_repository: Opener, tmp_path: Path
) -> None:
    image = {b"/bin/program": publisher.file(b"program", b"run")}
    publisher.publish({b"/d/e": publisher.file(b"e", b"old"), b"/image": publisher.bind(image, b"image")})
    first = open_repository()
    first.keep_state_in(tmp_path / "state")
    inodes = {path: inode(first, path) for path in (b"/image/bin/program", b"/d", b"/d/e")}
    publisher.publish({b"/d/e": publisher.file(b"e", b"other"), b"/image": publisher.bind(image, b"image")})
    manifest = first.newer_manifest()
    assert manifest is not None
    assert first.apply(first.plan(manifest), manifest)
    publisher.publish({b"/d/f": publisher.file(b"f")})
    second = open_repository()  # which begins with the newest revision
    second.resume(tmp_path / "state")
    assert second.manifest == manifest
    assert inode(second, b"/image/bin/program") == inodes[b"/image/bin/program"]
    assert second._wait(second.tree.node, inodes[b"/d/e"]).row.entry.size == 3  # who has it open goes on
    assert second.read(b"/d/e") == b"other"
    assert second.tree.untold == first.tree.untold != []  # what the kernel was not told, it is told now
    second.let_go(lambda number: False)
    assert second.refresh()
    assert inode(second, b"/d") == inodes[b"/d"]


@pytest.mark.parametrize("state", [None, b"", b"damaged"])
def test_without_a_state_there_is_no_going_on(
    state: bytes | None, publisher: Publisher, open_repository: Opener, tmp_path: Path
) -> None:
    publisher.publish({})
    if state is not None:
        (tmp_path / "state").write_bytes(state)
    with pytest.raises(CannotResume):
        open_repository().resume(tmp_path / "state")


def test_a_listing_goes_on_in_the_revision_in_which_it_began(publisher: Publisher, open_repository: Opener) -> None:
    def revision(*numbers: int) -> None:
        publisher.publish({b"/d/%d" % number: publisher.file(b"%d" % number) for number in numbers})

    revision(*range(100))
    repository = open_repository()
    tree, directory = repository.tree, inode(repository, b"/d")
    begun = tree.generation
    first = tree.page(tree.listing(directory, begun), 0, 50)
    for number in range(3):
        revision(*range(0, 100, 2), 1000 + number)
        assert repository.refresh()
    rest = tree.page(tree.listing(directory, begun), first[-1][0], 1000)
    names_seen = [node.row.entry.name for _, node in (*first, *rest) if node is not None]
    assert len(names_seen) == len(set(names_seen))
    assert {b"%d" % number for number in range(0, 100, 2)} <= set(names_seen)  # what was there all the time
    assert {int(name) for name in names_seen} <= set(range(100))
    now = tree.page(tree.listing(directory, tree.generation), 0, 1000)
    assert {node.row.entry.name for _, node in now if node} == {b"%d" % number for number in (*range(0, 100, 2), 1002)}


def test_the_root_keeps_its_inode(publisher: Publisher, open_repository: Opener) -> None:
    publisher.publish({b"/a": directory_entry(b"a")})
    repository = open_repository()
    publisher.publish({b"/b": directory_entry(b"b")})
    repository.refresh()
    assert inode(repository, b"") == ROOT_INODE
