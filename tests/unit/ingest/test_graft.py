"""Layers put on top of one another: the cases that have names, and what the cost is of a case that hasn't."""

import pytest

from ducc.catalog.split import SplitPolicy
from ducc.catalog.tree import Directory, Nested, entry_of, find
from ducc.catalog.writer import write_tree
from ducc.ingest.graft import UnresolvableLink, graft
from ducc.ingest.overlay import is_opaque
from ducc.layer.entries import Kind, Member
from tests.memory import catalogs_in_memory, counted, forgetful, refs
from tests.properties.layers import TINY, ingested

WHITEOUT, OPAQUE = Kind.WHITEOUT, Kind.OPAQUE


def file(path: bytes, mtime: int = 1, **fields: object) -> Member:
    return Member(path, Kind.FILE, 0o644, mtime=mtime, **fields)


def directory(path: bytes, mode: int = 0o755, **fields: object) -> Member:
    return Member(path, Kind.DIRECTORY, mode, **fields)


def symlink(path: bytes, target: bytes) -> Member:
    return Member(path, Kind.SYMLINK, 0o777, link=target)


def link(path: bytes, target: bytes) -> Member:
    return Member(path, Kind.HARDLINK, link=target)


def gone(path: bytes) -> Member:
    return Member(path, WHITEOUT)


def opaque(path: bytes) -> Member:
    return Member(path, OPAQUE)


class Stack:
    def __init__(self, *layers: list[Member], policy: SplitPolicy = TINY) -> None:
        self.catalogs = catalogs_in_memory()
        self.layers = [ingested(members, self.catalogs, policy, f"L{n}") for n, members in enumerate(layers)]
        self.image, self.completed = graft(self.layers, self.catalogs)

    def __getitem__(self, path: bytes):
        return self.at(self.image, path)

    def at(self, root: Directory, path: bytes):
        node = find(root, path, self.catalogs.open_nested)
        return None if node is None else entry_of(node)

    def written(self, path: bytes):
        """As it is read back from the catalogs."""
        ref = write_tree(self.image, self.catalogs, SplitPolicy()).ref
        return find(forgetful(self.catalogs).load(ref), path, None)

    def names(self, path: bytes = b"", root: Directory | None = None) -> list[bytes]:
        node = find(root or self.image, path, self.catalogs.open_nested)
        node = self.catalogs.open_nested(node) if isinstance(node, Nested) else node
        return sorted(node.children)

    def same_inode(self, *paths: bytes) -> bool:
        groups = {self[path].link_group for path in paths}
        return len(groups) == 1 and groups != {0}


def test_no_layer_is_an_empty_root():
    image, completed = graft([], catalogs_in_memory())
    assert (image.children, completed) == ({}, [])
    assert image.entry.mode == 0o40755


def test_one_layer_is_the_image():
    stack = Stack([directory(b"", 0o700), file(b"/a/b"), file(b"/c")])
    assert stack.names() == [b"a", b"c"]
    assert stack[b""].mode == 0o40700


def test_the_same_layer_twice_is_the_layer():
    members = [file(b"/a/x"), gone(b"/b"), link(b"/a/y", b"/a/x")]
    stack = Stack(members, members)
    assert stack.names() == [b"a"]
    assert stack.names(b"/a") == [b"x", b"y"]
    assert stack.same_inode(b"/a/x", b"/a/y")


def test_a_hundred_and_twenty_seven_layers_are_an_image():
    stack = Stack(*([file(b"/d/%d" % n, n), gone(b"/d/%d" % (n - 2))] for n in range(127)))
    assert stack.names(b"/d") == [b"125", b"126"]


def test_a_whiteout_in_the_lowest_layer_is_not_published():
    stack = Stack([gone(b"/d/x"), file(b"/d/y"), opaque(b"/e")])
    assert stack.names(b"/d") == stack.names(b"/d", stack.completed[0]) == [b"y"]
    assert not is_opaque(stack[b"/e"])


def test_a_whiteout_that_hides_nothing_is_not_published():
    stack = Stack([file(b"/f"), file(b"/d/x")], [gone(b"/d/none"), gone(b"/f/below"), gone(b"/d/x")])
    assert stack.names(b"/d", stack.completed[1]) == [b"x"]
    assert stack.names(b"/d") == []


def test_a_whiteout_below_an_opaque_directory_is_not_published():
    stack = Stack([file(b"/d/x"), file(b"/d/e/y")], [opaque(b"/d"), gone(b"/d/x"), gone(b"/d/e/y"), file(b"/d/z")])
    assert stack.names(b"/d") == [b"e", b"z"]
    assert stack.names(b"/d", stack.completed[1]) == [b"e", b"z"]
    assert stack.names(b"/d/e", stack.completed[1]) == []


def test_what_was_hidden_can_come_back():
    stack = Stack([file(b"/d/x", 1)], [gone(b"/d")], [file(b"/d/y", 3)])
    assert stack.names(b"/d") == [b"y"]
    assert stack[b"/d"].mtime == 0


def test_an_opaque_root_hides_everything_below_also_from_overlayfs():
    lower = [file(b"/a"), file(b"/b/x"), file(b"/c/x"), symlink(b"/d", b"a")]
    stack = Stack(lower, [opaque(b""), file(b"/b/y"), file(b"/d/z"), file(b"/e")])
    assert stack.names() == [b"b", b"d", b"e"]
    assert stack.names(b"/b") == [b"y"]
    completed = stack.completed[1]
    assert [name for name in stack.names(b"", completed) if stack.at(completed, b"/" + name).is_whiteout] == [
        b"a",
        b"c",
    ]
    assert is_opaque(stack.at(completed, b"/b"))
    assert not is_opaque(stack[b"/b"])


# --- implied directories (B21) and what is no directory below (B22) ------------------------


def test_a_directory_that_is_only_passed_through_keeps_what_is_below():
    stack = Stack([directory(b"/d", 0o1777, uid=5, mtime=9), file(b"/d/x")], [file(b"/d/y")])
    assert (stack[b"/d"].mode, stack[b"/d"].uid, stack[b"/d"].mtime) == (0o41777, 5, 9)
    assert stack.at(stack.completed[1], b"/d") == stack[b"/d"]._replace(linkcount=2)


def test_the_root_keeps_its_attributes_too():
    stack = Stack([directory(b"", 0o700, uid=7)], [file(b"/x")])
    assert (stack[b""].mode, stack[b""].uid) == (0o40700, 7)


def test_an_opaque_directory_without_a_member_keeps_its_attributes_and_those_below_it_do_not():
    stack = Stack(
        [directory(b"/d", 0o711), directory(b"/d/e", 0o700), file(b"/d/e/x")], [opaque(b"/d"), file(b"/d/e/y")]
    )
    assert stack[b"/d"].mode == 0o40711
    assert stack[b"/d/e"].mode == 0o40755
    assert stack.names(b"/d/e") == [b"y"]


def test_a_directory_takes_the_place_of_a_symbolic_link_below():
    stack = Stack([file(b"/usr/lib/a"), symlink(b"/lib", b"usr/lib")], [file(b"/lib/b")])
    assert stack.names(b"/lib") == [b"b"]
    assert stack.names(b"/usr/lib") == [b"a"]


@pytest.mark.parametrize("upper", [file(b"/p", 7), symlink(b"/p", b"t"), Member(b"/p", Kind.FIFO, 0o600)])
def test_what_is_no_directory_replaces_a_whole_directory(upper):
    stack = Stack([file(b"/p/x/y"), directory(b"/p/z")], [upper])
    assert not stack[b"/p"].is_directory
    assert stack[b"/p/x"] is None


def test_a_directory_that_says_nothing_new_changes_nothing():
    many = [directory(b"/d", 0o711), *(file(b"/d/%d" % n) for n in range(9))]
    stack = Stack(many, [directory(b"/d", 0o711)])
    assert isinstance(stack.image.children[b"d"], Nested)


# --- hard links ----------------------------------------------------------------------------


def test_a_link_to_a_lower_file_is_the_file_with_all_that_share_its_inode_there():
    stack = Stack([file(b"/d/a", 5), link(b"/d/b", b"/d/a"), file(b"/d/z")], [link(b"/d/c", b"/d/b")])
    assert stack.same_inode(b"/d/a", b"/d/b", b"/d/c")
    assert stack[b"/d/z"].link_group == 0
    assert stack.names(b"/d", stack.completed[1]) == [b"a", b"b", b"c"]


def test_two_links_to_one_lower_file_are_one_file():
    stack = Stack([file(b"/d/a", 5)], [link(b"/d/b", b"/d/a"), link(b"/d/c", b"/d/a"), link(b"/e/x", b"/d/a")])
    assert stack.same_inode(b"/d/a", b"/d/b", b"/d/c")
    assert (stack.written(b"/e/x").link_group, stack.written(b"/e/x").linkcount) == (0, 1)
    assert stack.written(b"/d/b").linkcount == 3


def test_links_in_another_directory_share_among_themselves():
    stack = Stack([file(b"/d/a", 5)], [link(b"/e/x", b"/d/a"), link(b"/e/y", b"/d/a")])
    assert stack.same_inode(b"/e/x", b"/e/y")
    assert stack[b"/d/a"].link_group == 0


def test_a_link_to_one_of_many_from_another_directory_is_a_file_of_its_own():
    stack = Stack([file(b"/d/a", 5), link(b"/d/b", b"/d/a")], [link(b"/e", b"/d/a")])
    written = stack.written(b"/e")
    assert (written.link_group, written.linkcount, written.mtime) == (0, 1, 5)


@pytest.mark.parametrize(
    "touched",
    [file(b"/d/b", 9), gone(b"/d/b"), symlink(b"/d/b", b"x"), directory(b"/d/b"), link(b"/d/b", b"/other")],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_copy_up_undoes_nothing_that_the_layer_does(touched, first):
    lower = [file(b"/d/a", 5), link(b"/d/b", b"/d/a"), file(b"/other", 8)]
    link_to_a = link(b"/d/c", b"/d/a")
    stack = Stack(lower, [touched, link_to_a] if first else [link_to_a, touched])
    alone = Stack(lower, [touched])
    ours, theirs = stack[b"/d/b"], alone[b"/d/b"]
    assert (ours and ours._replace(link_group=0)) == (theirs and theirs._replace(link_group=0))
    assert stack.same_inode(b"/d/a", b"/d/c")


def test_a_file_may_be_linked_to_and_then_replaced():
    stack = Stack([file(b"/d/a", 5)], [link(b"/d/b", b"/d/a"), file(b"/d/a", 9)])
    assert (stack[b"/d/a"].mtime, stack[b"/d/b"].mtime) == (9, 5)
    assert not stack.same_inode(b"/d/a", b"/d/b")


def test_a_file_may_be_linked_to_and_then_removed():
    stack = Stack([file(b"/d/a", 5)], [link(b"/d/b", b"/d/a"), gone(b"/d/a")])
    assert stack.names(b"/d") == [b"b"]


def test_a_link_does_not_bring_back_what_an_opaque_directory_hides():
    stack = Stack([file(b"/d/a", 5), link(b"/d/b", b"/d/a")], [opaque(b"/d"), link(b"/d/c", b"/d/a")])
    assert stack.names(b"/d") == [b"c"]


def test_a_link_through_a_lower_symbolic_link_finds_the_file_and_brings_no_others():
    lower = [file(b"/usr/a", 5), link(b"/usr/b", b"/usr/a"), symlink(b"/s", b"usr")]
    stack = Stack(lower, [link(b"/s/c", b"/s/a")])
    assert stack.names(b"/s") == [b"c"]
    assert stack[b"/s/c"].mtime == 5


@pytest.mark.parametrize("target", [b"/none", b"/d", b"/d/a/x", b"/loop/x", b"/d/none"])
def test_a_link_to_what_no_layer_has_as_a_file_is_refused(target):
    with pytest.raises(UnresolvableLink, match="L1"):
        Stack([file(b"/d/a"), symlink(b"/loop", b"loop")], [link(b"/x", target)])


def test_a_link_to_a_lower_link_follows_no_symbolic_link_at_its_end():
    stack = Stack([symlink(b"/s", b"a"), file(b"/a")], [link(b"/t", b"/s")])
    assert stack[b"/t"].symlink == b"a"


def test_groups_of_several_layers_never_become_one():
    lower = [m for n in range(6) for m in (file(b"/d/%d" % n, n), link(b"/d/%dx" % n, b"/d/%d" % n))]
    links = [link(b"/d/%dy" % n, b"/d/%d" % n) for n in range(6)]
    upper = [m for n in range(6) for m in (file(b"/d/u%d" % n, 50 + n), link(b"/d/u%dx" % n, b"/d/u%d" % n))]
    stack = Stack([directory(b"/d")], lower, links, upper, [gone(b"/d/%d" % n) for n in range(6)])
    names: dict[int, list[bytes]] = {}
    for name in stack.names(b"/d"):
        names.setdefault(stack[b"/d/" + name].link_group, []).append(name)
    expected = [[b"%dx" % n, b"%dy" % n] for n in range(6)] + [[b"u%d" % n, b"u%dx" % n] for n in range(6)]
    assert sorted(names.values()) == sorted(expected)
    assert 0 not in names


# --- what is shared, and what it costs -----------------------------------------------------

USR = [file(b"/usr/%d/%d" % (one, two)) for one in range(4) for two in range(5)]
ETC = [file(b"/etc/%d/%d" % (one, two)) for one in range(4) for two in range(5)]


def catalogs_of(stack: Stack, root: Directory) -> dict[bytes, object]:
    return refs(stack.catalogs, write_tree(root, stack.catalogs, TINY).ref)


def test_subtrees_that_one_layer_touches_are_that_layers_catalogs_and_are_not_opened():
    stack = Stack(USR, ETC, [file(b"/usr/2/new")])
    image, usr, etc = (catalogs_of(stack, root) for root in (stack.image, *stack.completed[:2]))
    shared = {path for path, ref in image.items() if ref in (usr.get(path), etc.get(path))}
    assert {path for path in image if path.startswith(b"/etc")} <= shared
    assert {b"/usr/0", b"/usr/1", b"/usr/3"} <= shared
    assert isinstance(stack.image.children[b"etc"], Nested)


def test_a_layer_that_needs_no_completion_is_itself():
    stack = Stack(USR, [directory(b""), directory(b"/etc"), *ETC, *(directory(b"/etc/%d" % n) for n in range(4))])
    assert stack.completed[1] is stack.layers[1].root


def test_the_counters_of_a_grafted_tree_are_right_though_most_was_not_opened():
    stack = Stack(USR, ETC, [file(b"/usr/2/new"), gone(b"/etc/1"), file(b"/etc/3/0", 9), opaque(b"/usr/3")])
    for root in (stack.image, *stack.completed):
        written = write_tree(root, stack.catalogs, TINY)
        assert counted(stack.catalogs, written.ref) == written.counters


def test_layers_may_meet_at_any_depth():
    path = b"/d" * 1500
    lower = [file(path + b"/a", 1), file(path + b"/b", 2), file(path[:-2] + b"/h", 3)]
    upper = [file(path + b"/c", 4), gone(path + b"/a"), link(path + b"/l", path + b"/b"), opaque(path + b"/e")]
    stack = Stack(lower, upper, [directory(path[:-2], 0o700)], policy=SplitPolicy())
    assert stack.names(path) == [b"b", b"c", b"e", b"l"]
    assert stack[path[:-2]].mode == 0o40700
    assert stack.written(path + b"/l").linkcount == 2


def test_a_deep_layer_full_of_marks_can_be_the_lowest():
    path = b"/d" * 1500
    stack = Stack([gone(path + b"/a"), opaque(path), file(path + b"/b")], policy=SplitPolicy())
    assert stack.names(path) == [b"b"]


def test_four_thousand_opaque_directories_take_no_square_of_time():
    lower = [file(b"/%d/x" % number) for number in range(4000)]
    upper = [member for number in range(4000) for member in (opaque(b"/%d" % number), file(b"/%d/y" % number))]
    stack = Stack(lower, upper, policy=SplitPolicy())
    assert stack.names(b"/77") == [b"y"]
