"""What stands in the catalogs of a tree, read by plain SQL: rows, flags, link counts, groups, counters."""

import sqlite3
import stat
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ducc.catalog.schema import CatalogRef, Counters
from ducc.catalog.split import SplitPolicy
from ducc.catalog.store import CatalogStore
from ducc.catalog.tree import MARKER, Bind, Directory, Nested, TreeEditor
from ducc.catalog.writer import write_tree
from ducc.cvmfs import xattrs
from ducc.cvmfs.entry import path_key
from ducc.cvmfs.objectname import ObjectName, Suffix
from tests.memory import (
    catalogs_in_memory,
    chunked,
    counted,
    directory_entry,
    file,
    forgetful,
    opened,
    refs,
    rows,
    special,
    symlink,
    tree,
)

ONE_CATALOG = SplitPolicy(10**6, 10**6, 10**6)
EVERYWHERE = SplitPolicy(heavy=4, light=2, limit=8)


def sql(catalogs: CatalogStore, ref: CatalogRef, query: str, *parameters: object) -> list[tuple]:
    name = ObjectName(ref.digest, Suffix.CATALOG)
    database = sqlite3.connect(":memory:")
    database.deserialize(catalogs._inflate(catalogs._store.get(name), ref.size))
    database.text_factory = bytes
    return database.execute(query, parameters).fetchall()


def column(catalogs: CatalogStore, ref: CatalogRef, path: bytes, name: str) -> object:
    found = sql(catalogs, ref, f"SELECT {name} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?", *path_key(path))
    return found[0][0]


KINDS = tree({
    b"/file": file(b"file", b"content", mtime=1, mtime_ns=5, uid=7, gid=2**32 - 2),
    b"/big": chunked(b"big", 10, 20, 5),
    b"/link": symlink(b"link", b"target"),
    b"/fifo": special(b"fifo", stat.S_IFIFO),
    b"/null": special(b"null", stat.S_IFCHR, 259),
    b"/disk": special(b"disk", stat.S_IFBLK, 2048),
    b"/dir/marked": file(b"marked", xattrs=xattrs.encode([(b"user.a", b"b")])),
    b"/dir/below/empty": Directory(directory_entry(b"empty")),
})  # fmt: skip


@pytest.fixture(scope="module")
def catalogs() -> CatalogStore:
    return catalogs_in_memory()


@pytest.fixture(scope="module")
def kinds(catalogs: CatalogStore) -> CatalogRef:
    return write_tree(KINDS, catalogs, ONE_CATALOG).ref


@pytest.mark.parametrize(
    ("path", "flags"),
    [
        (b"", 0x1),
        (b"/file", 0x4),
        (b"/big", 0x4 | 0x40),
        (b"/link", 0x4 | 0x8),
        (b"/fifo", 0x4 | 0x10),
        (b"/null", 0x4 | 0x10),
        (b"/disk", 0x4 | 0x10),
        (b"/dir", 0x1),
    ],
)
def test_flags_say_what_kind_of_entry_a_row_is(catalogs, kinds, path, flags):
    assert column(catalogs, kinds, path, "flags") == flags


def test_the_root_row_of_a_tree_has_no_name_no_parent_and_no_prefix(catalogs, kinds):
    assert sql(catalogs, kinds, "SELECT name, parent_1, parent_2 FROM catalog ORDER BY rowid LIMIT 1") == [(b"", 0, 0)]
    properties = dict(sql(catalogs, kinds, "SELECT key, value FROM properties"))
    assert properties == {b"schema": b"2.5", b"schema_revision": b"7", b"revision": b"0", b"last_modified": b"0"}


def test_a_row_names_its_parent_by_key(catalogs, kinds):
    for path in (b"/dir/below/empty", b"/dir/below", b"/dir", b"/file"):
        parent = path.rpartition(b"/")[0]
        found = tuple(column(catalogs, kinds, path, f"parent_{half}") for half in (1, 2))
        assert found == path_key(parent)


def test_only_whole_files_have_an_object(catalogs, kinds):
    with_object = sql(catalogs, kinds, "SELECT name FROM catalog WHERE hash IS NOT NULL ORDER BY name")
    assert with_object == [(b"file",), (b"marked",)]


def test_text_is_text_and_nothing_is_null_that_readers_expect(catalogs, kinds):
    types = sql(catalogs, kinds, "SELECT DISTINCT typeof(name), typeof(symlink) FROM catalog")
    assert types == [(b"text", b"text")]


def test_nanoseconds_and_attributes_are_null_when_there_are_none(catalogs, kinds):
    assert column(catalogs, kinds, b"/file", "mtimens") == 5
    assert column(catalogs, kinds, b"/big", "mtimens") is None
    assert column(catalogs, kinds, b"/file", "xattr") is None
    assert column(catalogs, kinds, b"/dir/marked", "xattr") is not None


def test_chunks_lie_in_a_table_of_their_own_in_order(catalogs, kinds):
    found = sql(catalogs, kinds, "SELECT md5path_1, md5path_2, offset, size FROM chunks ORDER BY rowid")
    assert found == [(*path_key(b"/big"), 0, 10), (*path_key(b"/big"), 10, 20), (*path_key(b"/big"), 30, 5)]


def test_a_directory_counts_itself_its_dot_and_its_directories(catalogs, kinds):
    assert column(catalogs, kinds, b"", "hardlinks") == 3
    assert column(catalogs, kinds, b"/dir", "hardlinks") == 3
    assert column(catalogs, kinds, b"/dir/below/empty", "hardlinks") == 2


def test_all_24_counters_are_there_and_right(catalogs, kinds):
    counters = dict(sql(catalogs, kinds, "SELECT counter, value FROM statistics"))
    assert len(counters) == 24
    expected = Counters(
        regular=3, symlink=1, special=3, dir=4, chunked=1, chunks=3, file_size=42, chunked_size=35, xattr=1
    )
    assert {name: counters[b"self_" + name.encode()] for name in Counters._fields} == expected._asdict()
    assert not any(value for name, value in counters.items() if name.startswith(b"subtree_"))


def test_rows_are_in_the_order_of_a_walk_and_rowids_have_no_gaps(catalogs, kinds):
    found = sql(catalogs, kinds, "SELECT rowid, name FROM catalog ORDER BY rowid")
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert [name for _, name in found[:7]] == [b"", b"big", b"dir", b"disk", b"fifo", b"file", b"link"]


# --- link groups ---------------------------------------------------------------------------


def linked(name: bytes, group: int, **fields: object):
    return file(name, b"same", link_group=group, **fields)


def test_names_of_one_inode_share_a_group_and_count_each_other(catalogs):
    ref = write_tree(
        tree({b"/a": linked(b"a", 9), b"/b": linked(b"b", 9), b"/c": file(b"c")}), catalogs, ONE_CATALOG
    ).ref
    assert [column(catalogs, ref, path, "hardlinks") for path in (b"/a", b"/b")] == [1 << 32 | 2] * 2
    assert column(catalogs, ref, b"/c", "hardlinks") == 1


def test_groups_of_different_directories_are_told_apart(catalogs):
    nodes = {path: linked(path[-1:], 1) for path in (b"/x/a", b"/x/b", b"/y/a", b"/y/b")}
    ref = write_tree(tree(nodes), catalogs, ONE_CATALOG).ref
    groups = {path: column(catalogs, ref, path, "hardlinks >> 32") for path in nodes}
    assert groups[b"/x/a"] == groups[b"/x/b"] != groups[b"/y/a"] == groups[b"/y/b"]


def test_a_group_of_one_name_is_none(catalogs):
    ref = write_tree(tree({b"/x/a": linked(b"a", 3, linkcount=2), b"/y/a": linked(b"a", 3)}), catalogs, ONE_CATALOG).ref
    assert column(catalogs, ref, b"/x/a", "hardlinks") == 1


def test_a_negative_group_is_a_group(catalogs):
    ref = write_tree(tree({b"/a": linked(b"a", -3), b"/b": linked(b"b", -3)}), catalogs, ONE_CATALOG).ref
    assert column(catalogs, ref, b"/a", "hardlinks") == 1 << 32 | 2


# --- nested catalogs and binds -------------------------------------------------------------

NESTED = {b"/usr/%d/%d" % (one, two): file(b"%d" % two) for one in range(3) for two in range(4)}


def test_mountpoint_and_nested_root_say_the_same(catalogs):
    ref = write_tree(tree(NESTED), catalogs, EVERYWHERE).ref
    places = refs(catalogs, ref)
    assert len(places) > 3
    columns = "hardlinks, size, mode, mtime, name, symlink, uid, gid, xattr, parent_1, parent_2"
    for path, nested in places.items():
        if not path:
            continue
        above = max((other for other in places if other != path and path.startswith(other + b"/")), key=len)
        at = f"SELECT {columns} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
        assert sql(catalogs, places[above], at, *path_key(path)) == sql(catalogs, nested, at, *path_key(path))
        assert column(catalogs, places[above], path, "flags") == 0x1 | 0x2
        assert column(catalogs, nested, path, "flags") == 0x1 | 0x20
        assert (path, str(nested).encode(), nested.size) in sql(
            catalogs, places[above], "SELECT path, sha1, size FROM nested_catalogs"
        )
        assert dict(sql(catalogs, nested, "SELECT key, value FROM properties"))[b"root_prefix"] == path


def test_nothing_below_a_mountpoint_stands_in_the_catalog_above(catalogs):
    ref = write_tree(tree(NESTED), catalogs, EVERYWHERE).ref
    for path, nested in opened(catalogs, ref).nested().items():
        assert column(catalogs, nested, path, "1") == 1
        assert not sql(catalogs, ref, "SELECT 1 FROM catalog WHERE parent_1 = ? AND parent_2 = ?", *path_key(path))


def test_every_nested_catalog_and_nothing_else_has_a_hidden_marker_whose_object_is_there(catalogs):
    ref = write_tree(tree(NESTED), catalogs, EVERYWHERE).ref
    for path, nested in refs(catalogs, ref).items():
        columns = "parent_1, parent_2, flags, hash, size"
        found = sql(catalogs, nested, f"SELECT {columns} FROM catalog WHERE name = CAST(? AS TEXT)", MARKER)
        if not path:
            assert found == []
            continue
        ((first, second, flags, digest, size),) = found
        assert (first, second) == path_key(path)
        assert flags == 0x4 | 0x8000
        assert size == 0
        assert catalogs._store.exists(ObjectName(digest))


def test_the_marker_is_not_part_of_the_tree_that_is_read_back(catalogs):
    ref = write_tree(tree(NESTED), catalogs, EVERYWHERE).ref
    assert not any(path.endswith(MARKER) for path in rows(catalogs.load(ref), catalogs))


def test_a_directory_that_is_nested_no_longer_loses_its_marker(catalogs):
    ref = write_tree(tree(NESTED), catalogs, EVERYWHERE).ref
    editor = TreeEditor(catalogs.load(ref), catalogs.open_nested)
    for path in refs(catalogs, ref):
        if path:
            editor.set_entry(path, directory_entry(path.rpartition(b"/")[2]))  # opens it
    flat = write_tree(editor.root, catalogs, ONE_CATALOG).ref
    assert flat == write_tree(tree(NESTED), catalogs, ONE_CATALOG).ref


def test_a_bind_repeats_the_root_row_under_its_own_name(catalogs):
    bound = write_tree(tree({b"/x/y": file(b"y")}), catalogs, ONE_CATALOG)
    trunk = tree({b"/at/here": Bind(bound.entry._replace(name=b"here"), bound.ref)})
    ref = write_tree(trunk, catalogs, ONE_CATALOG).ref
    assert column(catalogs, ref, b"/at/here", "flags") == 0x1 | 0x4000
    assert column(catalogs, ref, b"/at/here", "hardlinks") == column(catalogs, bound.ref, b"", "hardlinks") == 3
    assert sql(catalogs, ref, "SELECT path, sha1, size FROM bind_mountpoints") == [
        (b"/at/here", str(bound.ref).encode(), bound.ref.size)
    ]
    assert column(catalogs, ref, b"/at", "hardlinks") == 3
    assert dict(sql(catalogs, ref, "SELECT counter, value FROM statistics"))[b"subtree_dir"] == 0
    again = write_tree(forgetful(catalogs).load(ref), catalogs, ONE_CATALOG)
    assert again.ref == ref


# --- what is written can be read and written again -----------------------------------------

NAMES = st.binary(min_size=1, max_size=5).filter(lambda name: not set(name) & {0, 0x2F} and name not in (b".", b".."))
LEAVES = st.one_of(
    st.binary(max_size=4).map(
        lambda seed: file(b"", seed, mtime=len(seed) - 2, xattrs=xattrs.encode([(b"user.x", seed)]))
    ),
    st.binary(min_size=1, max_size=4).filter(lambda target: 0 not in target).map(lambda target: symlink(b"", target)),
    st.lists(st.integers(1, 9), min_size=2, max_size=3).map(lambda sizes: chunked(b"", *sizes)),
    st.just(special(b"", stat.S_IFIFO)),
    st.sampled_from([1, 2]).map(lambda group: file(b"", b"same", link_group=group)),
)


@st.composite
def trees(draw: st.DrawFn, depth: int = 4) -> Directory:
    root = Directory(directory_entry())
    pending = [(root, depth)]
    while pending:
        directory, left = pending.pop()
        for name in draw(st.lists(NAMES, max_size=4, unique=True)):
            if left and draw(st.booleans()):
                child = Directory(directory_entry(name, uid=draw(st.integers(0, 3))))
                directory.children[name] = child
                pending.append((child, left - 1))
            else:
                directory.children[name] = draw(LEAVES)._replace(name=name)
    return root


POLICIES = st.builds(SplitPolicy, st.integers(1, 8), st.integers(1, 4), st.integers(4, 12), st.booleans())


@given(trees(), POLICIES)
@settings(max_examples=120, deadline=None)
def test_what_is_read_back_is_what_was_written_and_written_again_has_the_same_name(root, policy):
    catalogs = catalogs_in_memory()
    written = write_tree(root, catalogs, policy)
    fresh = forgetful(catalogs)
    assert rows(fresh.load(written.ref), fresh) == rows(root, catalogs)
    assert counted(fresh, written.ref) == written.counters
    assert write_tree(fresh.load(written.ref), fresh, policy).ref == written.ref
    opened_all = everything_opened(fresh.load(written.ref), fresh)
    assert write_tree(opened_all, fresh, policy).ref == written.ref


def everything_opened(root: Directory, catalogs: CatalogStore) -> Directory:
    editor = TreeEditor(root, catalogs.open_nested)
    for path, entry in rows(root, catalogs).items():
        if entry.is_directory:
            editor.set_entry(path, entry)
    return editor.root


EDITS = st.lists(
    st.tuples(st.sampled_from(["put", "remove", "directory"]), st.integers(0, 30), NAMES), min_size=1, max_size=6
)


@given(trees(), POLICIES, POLICIES, EDITS)
@settings(max_examples=150, deadline=None)
def test_counters_are_right_after_edits_that_left_most_catalogs_unopened(root, first, second, edits):
    catalogs = catalogs_in_memory()
    ref = write_tree(root, catalogs, first).ref
    catalogs = forgetful(catalogs)
    editor = TreeEditor(catalogs.load(ref), catalogs.open_nested)
    paths = sorted(rows(editor.root, catalogs))
    for action, number, name in edits:
        path = paths[number % len(paths)]
        if action == "remove" and path:
            editor.remove(path)
        else:
            node = Directory(directory_entry(name)) if action == "directory" else file(name, b"new")
            editor.put(path + b"/" + name, node, directory_entry())
    written = write_tree(editor.root, catalogs, second)
    assert counted(catalogs, written.ref) == written.counters
    fresh = forgetful(catalogs)
    assert rows(fresh.load(written.ref), fresh) == rows(editor.root, catalogs)


def test_a_tree_of_which_nothing_was_opened_costs_one_row_for_each_nested_catalog(catalogs):
    ref = write_tree(tree(NESTED), catalogs, EVERYWHERE).ref
    before = refs(catalogs, ref)
    store = forgetful(catalogs)
    editor = TreeEditor(store.load(ref), store.open_nested)
    editor.put(b"/new", file(b"new"), directory_entry())
    after = refs(store, write_tree(editor.root, store, EVERYWHERE).ref)
    assert {path: one for path, one in after.items() if path} == {path: one for path, one in before.items() if path}
    assert isinstance(editor.root.children[b"usr"], Nested)


def test_names_may_be_any_bytes(catalogs):
    names = [b"caf\xe9", "é".encode(), "é".encode(), b"\xff\xfe", b"a\nb", b"\x01", b"'; --", b"x" * 255]
    root = tree({b"/" + name: file(name) for name in names} | {b"/d\xff/l\xfe": symlink(b"l\xfe", b"t\xfd")})
    ref = write_tree(root, catalogs, EVERYWHERE).ref
    fresh = forgetful(catalogs)
    assert rows(fresh.load(ref), fresh) == rows(root, catalogs)


def test_equal_trees_have_equal_names_whatever_the_order_they_were_made_in(catalogs):
    one = write_tree(tree(NESTED), catalogs, EVERYWHERE).ref
    other = write_tree(tree(dict(reversed(NESTED.items()))), catalogs_in_memory(), EVERYWHERE).ref
    assert one == other


def test_five_hundred_nested_catalogs_inside_one_another_are_written_and_read(catalogs):
    policy = SplitPolicy(heavy=1, light=1, limit=1)
    path = b"".join(b"/%d" % (number % 10) for number in range(500))
    nodes = {path[: 2 * depth] + b"/f": file(b"f") for depth in range(1, 500)}
    written = write_tree(tree(nodes), catalogs, policy)
    assert len(refs(catalogs, written.ref)) > 450
    assert len(rows(forgetful(catalogs).load(written.ref), catalogs)) == 1 + 499 * 2


def test_properties_go_into_the_root_catalog_alone(catalogs):
    ref = write_tree(tree(NESTED), catalogs, EVERYWHERE, {"revision": "7", "TTL": "60"}).ref
    assert opened(catalogs, ref).properties()[b"TTL"] == b"60"
    for path, nested in refs(catalogs, ref).items():
        properties = opened(catalogs, nested).properties()
        assert (properties[b"revision"], b"TTL" in properties) == ((b"7", True) if not path else (b"0", False))


def leaf_first(order: list[bytes]) -> Iterator[bool]:
    for position, path in enumerate(order):
        yield all(not other.startswith(path + b"/") for other in order[position + 1 :])


def test_what_a_catalog_refers_to_was_put_before_it():
    catalogs = catalogs_in_memory()
    names = {
        ref.digest: path for path, ref in refs(catalogs, write_tree(tree(NESTED), catalogs, EVERYWHERE).ref).items()
    }
    order = [names[name.digest] for name in catalogs._store._staged if name.suffix is Suffix.CATALOG]
    assert order[-1] == b""
    assert all(leaf_first(order))
