"""Trees as values: what an editor changes, and above all what it leaves alone."""

import pytest

from ducc.catalog.split import SplitPolicy
from ducc.catalog.tree import Bind, Directory, Nested, TreeEditor, directories, entry_of, find, names_of, renamed
from ducc.catalog.writer import write_tree
from tests.memory import catalogs_in_memory, directory_entry, file, rows, symlink, tree

NODES = {
    b"/bin/sh": file(b"sh", b"shell"),
    b"/etc/motd": file(b"motd"),
    b"/etc/ssl/cert": file(b"cert"),
    b"/lib": symlink(b"lib", b"usr/lib"),
}


def unopened(_nested: Nested) -> Directory:
    raise AssertionError("nothing is nested here")


@pytest.fixture
def editor() -> TreeEditor:
    return TreeEditor(tree(NODES), unopened)


def test_the_root_has_no_names_and_a_path_has_one_for_each_level():
    assert names_of(b"") == []
    assert names_of(b"/a/b") == [b"a", b"b"]


def test_a_walk_yields_parents_first_and_names_in_order():
    paths = [path for path, _ in directories(tree(NODES))]
    assert paths == [b"", b"/bin", b"/etc", b"/etc/ssl"]


def test_a_walk_can_begin_at_any_path():
    assert [path for path, _ in directories(tree({b"/b/c": file(b"c")}), b"/a")] == [b"/a", b"/a/b"]


@pytest.mark.parametrize("path", [b"/none", b"/bin/none", b"/bin/sh/below", b"/lib/below", b"/none/below"])
def test_where_nothing_stands_nothing_is_found(path):
    assert find(tree(NODES), path, unopened) is None


def test_symbolic_links_are_found_and_not_followed():
    assert find(tree({**NODES, b"/usr/lib/x": file(b"x")}), b"/lib/x", unopened) is None
    assert entry_of(find(tree(NODES), b"/lib", unopened)).symlink == b"usr/lib"


def test_binds_are_found_and_not_entered():
    bind = Bind(directory_entry(b"here"), write_tree(tree(NODES), catalogs_in_memory(), SplitPolicy()).ref)
    assert find(tree({b"/at/here": bind}), b"/at/here", unopened) is bind
    assert find(tree({b"/at/here": bind}), b"/at/here/bin", unopened) is None


def test_a_change_leaves_the_tree_that_was_given_as_it_was(editor):
    before = editor.root
    shown = rows(before, None)
    editor.put(b"/etc/ssl/new", file(b"new"), directory_entry())
    editor.remove(b"/bin/sh")
    editor.set_entry(b"/etc", directory_entry(b"etc", uid=5))
    editor.nest(b"/etc/ssl", directory_entry())
    assert rows(before, None) == shown
    assert before.children[b"etc"].children[b"ssl"].nested is False
    assert editor.root is not before


def test_what_was_not_touched_is_shared(editor):
    before = editor.root
    editor.put(b"/etc/new", file(b"new"), directory_entry())
    assert editor.root.children[b"bin"] is before.children[b"bin"]
    assert editor.root.children[b"etc"].children[b"ssl"] is before.children[b"etc"].children[b"ssl"]


def test_missing_parents_are_made_with_the_attributes_given_and_their_own_names(editor):
    editor.put(b"/a/b/c", file(b"c"), directory_entry(uid=9))
    parents = [entry_of(editor.find(path)) for path in (b"/a", b"/a/b")]
    assert [(parent.name, parent.uid, parent.is_directory) for parent in parents] == [(b"a", 9, True), (b"b", 9, True)]


@pytest.mark.parametrize("path", [b"/bin/sh", b"/lib"])
def test_what_is_no_directory_gives_way_to_one(editor, path):
    editor.put(path + b"/below", file(b"below"), directory_entry())
    assert isinstance(editor.find(path), Directory)
    assert editor.find(path + b"/below") == file(b"below")


def test_what_is_put_replaces_whatever_stood_there(editor):
    editor.put(b"/etc", file(b"etc"), directory_entry())
    assert editor.find(b"/etc") == file(b"etc")
    assert editor.find(b"/etc/motd") is None


def test_removing_takes_all_below_and_says_whether_there_was_anything(editor):
    assert editor.remove(b"/etc")
    assert editor.find(b"/etc/ssl/cert") is None
    assert not editor.remove(b"/etc")
    assert not editor.remove(b"/bin/sh/below")
    assert sorted(rows(editor.root, None)) == [b"", b"/bin", b"/bin/sh", b"/lib"]


def test_the_root_can_get_other_attributes(editor):
    editor.set_entry(b"", directory_entry(uid=3))
    assert editor.root.entry.uid == 3
    assert editor.find(b"/bin/sh") == file(b"sh", b"shell")


def test_a_nested_catalog_is_opened_only_on_the_way_to_a_change():
    catalogs = catalogs_in_memory()
    nodes = {b"/%b/%b" % (top, name): file(name) for top in (b"x", b"y") for name in (b"1", b"2", b"3")}
    ref = write_tree(tree(nodes), catalogs, SplitPolicy(heavy=3, light=2)).ref
    opened = []
    editor = TreeEditor(
        catalogs.load(ref), lambda nested: opened.append(nested.entry.name) or catalogs.open_nested(nested)
    )
    editor.put(b"/x/4", file(b"4"), directory_entry())
    assert opened == [b"x"]
    assert isinstance(editor.root.children[b"y"], Nested)
    assert editor.root.children[b"x"].nested


def test_a_node_under_another_name_keeps_all_else():
    for node in (file(b"a", uid=2), tree(NODES), Bind(directory_entry(b"a"), None)):
        other = renamed(node, b"other")
        assert type(other) is type(node)
        assert entry_of(other) == entry_of(node)._replace(name=b"other")
    assert renamed(tree(NODES), b"other").children.keys() == tree(NODES).children.keys()


def test_a_path_of_two_thousand_levels_can_be_made_found_and_removed():
    path = b"/d" * 2000
    editor = TreeEditor(Directory(directory_entry()), unopened)
    editor.put(path + b"/f", file(b"f"), directory_entry())
    assert editor.find(path + b"/f") == file(b"f")
    assert len(list(directories(editor.root))) == 2001
    assert editor.remove(path)
