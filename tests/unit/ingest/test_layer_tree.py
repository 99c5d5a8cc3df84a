"""A layer's names become a tree: the last member wins, links stay inside, and what concerns lower layers is noted."""

import pytest

from ducc.catalog.tree import Directory, entry_of, find
from ducc.cvmfs import xattrs
from ducc.errors import DuccError
from ducc.ingest import layer_tree
from ducc.ingest.contents import Content
from ducc.ingest.layer_tree import MAX_LINK_HOPS, ImpossibleEntry, LayerTreeBuilder
from ducc.ingest.overlay import is_opaque
from ducc.layer.entries import Kind, Member

WHITEOUT, OPAQUE = Kind.WHITEOUT, Kind.OPAQUE


def file(path: bytes, mtime: int = 1, **fields: object) -> Member:
    return Member(path, Kind.FILE, 0o644, mtime=mtime, **fields)


def directory(path: bytes, mode: int = 0o755, **fields: object) -> Member:
    return Member(path, Kind.DIRECTORY, mode, **fields)


def symlink(path: bytes, target: bytes) -> Member:
    return Member(path, Kind.SYMLINK, 0o777, link=target)


def link(path: bytes, target: bytes) -> Member:
    return Member(path, Kind.HARDLINK, link=target)


class Built:
    def __init__(self, *members: Member) -> None:
        builder = LayerTreeBuilder("x")
        for member in members:
            builder.add(member, Content(b"%020d" % member.mtime) if member.kind is Kind.FILE else None)
        self.root, self.notes = builder.finish()

    def __getitem__(self, path: bytes):
        node = find(self.root, path, None)
        return None if node is None else entry_of(node)

    def names(self, path: bytes = b"") -> list[bytes]:
        node = find(self.root, path, None)
        assert isinstance(node, Directory)
        return sorted(node.children)

    def same_inode(self, one: bytes, other: bytes) -> bool:
        return self[one].link_group == self[other].link_group != 0


def refused(*members: Member) -> str:
    with pytest.raises(ImpossibleEntry) as caught:
        Built(*members)
    return str(caught.value)


def test_members_keep_all_their_attributes():
    built = Built(
        Member(b"/f", Kind.FILE, 0o4711, 2**31, 5, -7, 999_999_999, 3, xattrs=((b"user.a", b"\0"),)),
        Member(b"/n", Kind.CHARACTER, 0o666, device=259),
        Member(b"/d", Kind.DIRECTORY, 0o1777, 1, 2, 3),
        Member(b"/p", Kind.FIFO, 0o600),
        symlink(b"/s", b"over/there\n"),
    )
    assert built[b"/f"]._replace(content=None) == built[b"/f"]._replace(
        content=None, mode=0o104711, uid=2**31, gid=5, mtime=-7, mtime_ns=999_999_999, size=3,
        xattrs=xattrs.encode([(b"user.a", b"\0")]), name=b"f",
    )  # fmt: skip
    assert (built[b"/n"].mode, built[b"/n"].size) == (0o20666, 259)
    assert (built[b"/d"].mode, built[b"/d"].uid, built[b"/d"].size) == (0o41777, 1, 4096)
    assert (built[b"/p"].mode, built[b"/p"].size) == (0o10600, 0)
    assert (built[b"/s"].symlink, built[b"/s"].size) == (b"over/there\n", 11)


def test_the_root_can_have_attributes_and_must_be_a_directory():
    assert Built(directory(b"", 0o700))[b""].mode == 0o40700
    assert Built(directory(b"", 0o700)).notes.implied == ()
    assert "must be a directory" in refused(file(b""))


def test_an_empty_layer_is_an_implied_root():
    built = Built()
    assert built.names() == []
    assert built.notes.implied == (b"",)


# --- duplicates and replacements (B10, B20) ------------------------------------------------

MAKERS = {
    "file": lambda path: [file(path, 5)],
    "symlink": lambda path: [symlink(path, b"t")],
    "fifo": lambda path: [Member(path, Kind.FIFO, 0o600)],
    "directory": lambda path: [directory(path)],
    "full directory": lambda path: [directory(path), file(path + b"/x")],
    "hard link": lambda path: [file(b"/target"), link(path, b"/target")],
    "link to a lower file": lambda path: [link(path, b"/below")],
}


@pytest.mark.parametrize("second", [name for name in MAKERS if "directory" not in name])
@pytest.mark.parametrize("first", MAKERS)
def test_of_two_members_of_one_path_the_last_wins(first, second):
    built, alone = Built(*MAKERS[first](b"/p"), *MAKERS[second](b"/p")), Built(*MAKERS[second](b"/p"))
    assert built[b"/p"] == alone[b"/p"] or built[b"/p"]._replace(link_group=0) == alone[b"/p"]._replace(link_group=0)
    assert [path for path, _ in built.notes.lower_links] == [path for path, _ in alone.notes.lower_links]
    assert built[b"/p/x"] is None


@pytest.mark.parametrize("first", [name for name in MAKERS if "directory" not in name])
def test_a_directory_replaces_what_is_none(first):
    built = Built(*MAKERS[first](b"/p"), directory(b"/p", 0o711), file(b"/p/x"))
    assert built[b"/p"].mode == 0o40711
    assert built.names(b"/p") == [b"x"]
    assert built.notes.lower_links == ()


def test_a_directory_twice_keeps_what_is_in_it_and_has_the_last_attributes():
    built = Built(directory(b"/d", 0o700), file(b"/d/x"), directory(b"/d", 0o711))
    assert built[b"/d"].mode == 0o40711
    assert built.names(b"/d") == [b"x"]


def test_a_replaced_directory_says_nothing_of_lower_layers_any_more():
    built = Built(Member(b"/d/x", WHITEOUT), Member(b"/d", OPAQUE), link(b"/d/y", b"/below"), file(b"/d"))
    assert built.notes.whiteouts == built.notes.opaque == built.notes.lower_links == ()


def test_a_group_whose_other_name_was_replaced_is_none_once_written():
    built = Built(file(b"/a"), link(b"/b", b"/a"), file(b"/a", 9))
    assert built[b"/a"].link_group == 0
    assert built[b"/b"].mtime == 1


# --- symbolic links among parents (B4, B5, B12) --------------------------------------------


def test_members_below_a_link_go_where_it_points_inside_the_layer():
    built = Built(
        directory(b"/real"), symlink(b"/l", b"real"), file(b"/l/x"), symlink(b"/abs", b"/real"), file(b"/abs/y")
    )
    assert built.names(b"/real") == [b"x", b"y"]
    assert built[b"/l"].is_symlink


@pytest.mark.parametrize("target", [b"../../../real", b"/../real", b"./x/.././../real", b"real/", b"//real"])
def test_no_link_leads_out_of_the_layer(target):
    built = Built(directory(b"/real"), directory(b"/x"), symlink(b"/l", target), file(b"/l/f"))
    assert built.names(b"/real") == [b"f"]


def test_what_a_link_points_to_is_made_if_it_is_missing():
    built = Built(symlink(b"/l", b"a/b"), file(b"/l/x"))
    assert built.names(b"/a/b") == [b"x"]
    assert built.notes.implied == (b"", b"/a", b"/a/b")


@pytest.mark.parametrize("links", [{b"/l": b"l"}, {b"/l": b"m", b"/m": b"/l"}, {b"/l": b"l/l/l"}])
def test_a_loop_of_links_is_refused(links):
    members = [symlink(path, target) for path, target in links.items()]
    assert str(MAX_LINK_HOPS) in refused(*members, file(b"/l/x"))


def test_as_many_links_as_a_kernel_follows_are_followed_and_not_one_more():
    members = [symlink(b"/%d" % number, b"%d" % (number - 1)) for number in range(1, 60)]
    assert Built(*members, directory(b"/0"), file(b"/40/x")).names(b"/0") == [b"x"]
    refused(*members, directory(b"/0"), file(b"/41/x"))


def test_a_bomb_of_links_is_refused_soon():
    members = [symlink(b"/%d" % number, b"/".join([b"%d" % (number + 1)] * 500)) for number in range(30)]
    assert "4096 bytes" in refused(*members, file(b"/0/x"))


def test_links_do_not_lead_to_a_path_that_nobody_can_write():
    deep = b"/%b" % (b"d" * 250) * 9
    assert "4096 bytes" in refused(symlink(b"/l", deep + b"/l2"), symlink(deep + b"/l2", b"." + deep), file(b"/l/x"))


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.FIFO, Kind.CHARACTER])
def test_nothing_is_below_what_is_no_directory(kind):
    assert "no directory" in refused(Member(b"/p", kind, device=1), file(b"/p/x"))


def test_nothing_is_below_a_link_to_a_file_of_a_lower_layer():
    assert "no directory" in refused(link(b"/p", b"/below"), file(b"/p/x"))


def test_a_name_reached_through_a_link_to_itself_is_not_taken_from_memory():
    built = directory(b"/d"), symlink(b"/d/l", b"."), file(b"/d/l/x")
    assert Built(*built).names(b"/d") == [b"l", b"x"]
    refused(*built, file(b"/d/l/l"), file(b"/d/l/y"))


def test_after_a_link_is_replaced_by_a_directory_its_name_means_the_directory():
    built = Built(directory(b"/d"), symlink(b"/l", b"d"), file(b"/l/x"), directory(b"/l"), file(b"/l/y"))
    assert built.names(b"/d") == [b"x"]
    assert built.names(b"/l") == [b"y"]


# --- hard links (B7, B8, B9) ---------------------------------------------------------------


def test_links_in_one_directory_share_an_inode():
    built = Built(file(b"/d/a", 7), link(b"/d/b", b"/d/a"), link(b"/d/c", b"/d/b"), file(b"/d/z"))
    assert built.same_inode(b"/d/a", b"/d/b")
    assert built.same_inode(b"/d/a", b"/d/c")
    assert built[b"/d/z"].link_group == 0
    assert built[b"/d/c"]._replace(name=b"a") == built[b"/d/a"]


def test_groups_are_told_apart_within_a_directory_and_end_with_it():
    built = Built(file(b"/a"), link(b"/b", b"/a"), file(b"/c"), link(b"/d", b"/c"), link(b"/e/x", b"/a"))
    assert not built.same_inode(b"/a", b"/c")
    assert built.same_inode(b"/a", b"/b")
    assert built[b"/e/x"].content == built[b"/a"].content


def test_a_link_to_a_symbolic_link_is_that_symbolic_link():
    built = Built(symlink(b"/s", b"nowhere"), link(b"/t", b"/s"))
    assert built[b"/t"].symlink == b"nowhere"
    assert built.same_inode(b"/s", b"/t")


def test_a_link_through_a_symbolic_link_finds_the_file():
    built = Built(file(b"/d/a", 7), symlink(b"/s", b"d"), link(b"/b", b"/s/a"))
    assert built[b"/b"].mtime == 7


@pytest.mark.parametrize(
    "members",
    [
        [link(b"/a", b"/a")],
        [directory(b"/d"), link(b"/a", b"/d")],
        [file(b"/d/x"), link(b"/a", b"/d")],
        [file(b"/f"), link(b"/a", b"/f/x")],
        [Member(b"/gone", WHITEOUT), link(b"/a", b"/gone")],
        [symlink(b"/l", b"l"), link(b"/a", b"/l/x")],
    ],
)
def test_links_that_can_mean_nothing_are_refused(members):
    refused(*members)


def test_a_link_to_what_this_layer_does_not_have_is_noted_with_its_target_as_written():
    built = Built(link(b"/a", b"/x/y"), symlink(b"/l", b"d"), link(b"/l/b", b"/z"))
    assert built.notes.lower_links == ((b"/a", b"/x/y"), (b"/d/b", b"/z"))
    assert built[b"/a"] is None


def test_a_cycle_of_links_is_a_link_to_a_file_that_nobody_has():
    assert Built(link(b"/a", b"/b"), link(b"/b", b"/a")).notes.lower_links == ((b"/a", b"/b"), (b"/b", b"/b"))


# --- whiteouts and opaque directories (B14, B15, B17) --------------------------------------


def test_a_whiteout_is_a_device_of_number_zero_and_noted():
    built = Built(Member(b"/d/x", WHITEOUT))
    assert built[b"/d/x"].is_whiteout
    assert built.notes.whiteouts == (b"/d/x",)


def orders(*members: Member):
    return pytest.mark.parametrize("members", [members, members[::-1]], ids=["first", "last"])


@orders(Member(b"/d/x", WHITEOUT), file(b"/d/x", 7))
def test_what_a_layer_itself_has_is_not_hidden_by_its_whiteout(members):
    built = Built(*members)
    assert built[b"/d/x"].mtime == 7
    assert built.notes.whiteouts == ()


@orders(Member(b"/d", WHITEOUT), file(b"/d/x", 7))
def test_a_directory_made_in_place_of_a_hidden_one_has_nothing_of_it(members):
    built = Built(*members)
    assert is_opaque(built[b"/d"])
    assert built.notes.opaque == (b"/d",)
    assert built.notes.implied == (b"",)
    assert built.names(b"/d") == [b"x"]


@orders(Member(b"/d", OPAQUE), file(b"/d/x", 7))
def test_an_opaque_directory_keeps_what_this_layer_puts_there(members):
    built = Built(*members)
    assert is_opaque(built[b"/d"])
    assert built.names(b"/d") == [b"x"]
    assert built.notes.implied == (b"", b"/d")


@orders(Member(b"/d", OPAQUE), directory(b"/d", 0o711))
def test_an_opaque_directory_has_its_members_attributes(members):
    assert Built(*members)[b"/d"].mode == 0o40711
    assert is_opaque(Built(*members)[b"/d"])


def test_a_layer_may_be_opaque_at_its_root():
    built = Built(Member(b"", OPAQUE), file(b"/x"))
    assert built.notes.opaque == (b"",)


def test_a_whiteout_through_a_symbolic_link_is_about_what_the_link_names_in_this_layer():
    built = Built(directory(b"/real"), symlink(b"/l", b"real"), Member(b"/l/x", WHITEOUT), Member(b"/l", OPAQUE))
    assert built.notes.whiteouts == (b"/real/x",)
    assert built.notes.opaque == (b"/real",)


def test_a_whiteout_below_a_file_of_the_same_layer_hides_nothing():
    built = Built(file(b"/d"), Member(b"/d/x", WHITEOUT), Member(b"/d", OPAQUE))
    assert built[b"/d"].is_regular
    assert built.notes.whiteouts == built.notes.opaque == ()


# --- implied directories (B21), depth (B46) ------------------------------------------------


def test_directories_without_a_member_are_made_plainly_and_noted():
    built = Built(file(b"/a/b/x"), directory(b"/a", 0o700, uid=3))
    assert built.notes.implied == (b"", b"/a/b")
    assert (built[b"/a/b"].mode, built[b"/a/b"].uid, built[b"/a/b"].mtime) == (0o40755, 0, 0)
    assert built[b"/a"].mode == 0o40700


def test_notes_are_sorted_by_bytes():
    built = Built(file(b"/b/x"), file(b"/a\xff/x"), file(b"/a/x"), file(b"/a-/x"))
    assert built.notes.implied == (b"", b"/a", b"/a-", b"/a\xff", b"/b")


def test_a_path_of_two_thousand_levels_is_a_path():
    path = b"/d" * 2000
    built = Built(file(path + b"/x"), Member(path + b"/y", WHITEOUT), link(path + b"/z", path + b"/x"))
    assert built[path + b"/x"].is_regular
    assert len(built.notes.implied) == 2001


def test_errors_name_the_layer_and_show_any_path():
    text = refused(file(b"/caf\xe9\n"), file(b"/caf\xe9\n/x"))
    assert "layer x" in text
    assert "\n" not in text
    assert issubclass(ImpossibleEntry, DuccError)


def test_a_layer_has_a_bounded_number_of_names_implied_ones_included(monkeypatch):
    monkeypatch.setattr(layer_tree, "MAX_NAMES", 10)
    Built(file(b"/a/b/c/d/e/f/g/h/i/j"))
    with pytest.raises(layer_tree.TooManyNames, match="one name too many"):
        Built(file(b"/a/b/c/d/e/f/g/h/i/j"), file(b"/k"))
