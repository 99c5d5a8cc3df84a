"""What a layer changes of those below it, and what is different between two trees."""

import os
import stat
from pathlib import Path

import pytest

from graphdriver.changes import Change, ChangeKind, layer_changes, tree_changes
from graphdriver.directory import OPAQUE, Below, content_size
from tests.needs import need_root

ADDED, DELETED, MODIFIED = ChangeKind.ADDED, ChangeKind.DELETED, ChangeKind.MODIFIED
LONG_AGO = (10**18, 10**18)


class Layers:
    def __init__(self, top: Path) -> None:
        self.upper, self.middle, self.lower = top / "upper", top / "middle", top / "lower"
        for layer in (self.upper, self.middle, self.lower):
            layer.mkdir()

    def changes(self) -> set[tuple[bytes, ChangeKind]]:
        for layer in (self.upper, self.middle, self.lower):
            for parent, directories, _ in os.walk(layer):
                for name in directories:
                    os.utime(os.path.join(parent, name), ns=LONG_AGO)
        return set(layer_changes(self.upper, Below([self.middle, self.lower])))


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    need_root()
    return Layers(tmp_path)


def put(layer: Path, name: str, text: str = "") -> Path:
    path = layer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def hide(layer: Path, name: str) -> None:
    (layer / name).parent.mkdir(parents=True, exist_ok=True)
    os.mknod(layer / name, stat.S_IFCHR, 0)


def test_files_are_added_modified_and_deleted_and_their_directories_with_them(layers: Layers) -> None:
    put(layers.lower, "d/kept")
    put(layers.lower, "d/changed", "old")
    put(layers.middle, "d/gone")
    put(layers.upper, "d/changed", "new")
    put(layers.upper, "d/new")
    hide(layers.upper, "d/gone")
    hide(layers.upper, "d/never-was")
    assert layers.changes() == {
        (b"/d", MODIFIED), (b"/d/changed", MODIFIED), (b"/d/new", ADDED), (b"/d/gone", DELETED),
    }  # fmt: skip


def test_what_a_layer_between_hides_is_new_when_it_comes_again(layers: Layers) -> None:
    put(layers.lower, "a")
    put(layers.lower, "d/b")
    hide(layers.middle, "a")
    (layers.middle / "d").mkdir()
    os.setxattr(layers.middle / "d", OPAQUE, b"y")
    put(layers.upper, "a")
    put(layers.upper, "d/b")
    hide(layers.upper, "d/c")
    assert layers.changes() == {(b"/a", ADDED), (b"/d", MODIFIED), (b"/d/b", ADDED)}


def test_a_directory_that_hides_what_is_below_deletes_it_but_for_what_is_there_again(layers: Layers) -> None:
    put(layers.lower, "d/one")
    put(layers.middle, "d/two")
    hide(layers.middle, "d/three")
    put(layers.lower, "d/three")
    put(layers.upper, "d/one", "again")
    os.setxattr(layers.upper / "d", OPAQUE, b"y")
    assert layers.changes() == {(b"/d", MODIFIED), (b"/d/one", MODIFIED), (b"/d/two", DELETED)}


def test_a_directory_in_the_place_of_a_file_or_a_link_has_nothing_below_it(layers: Layers) -> None:
    put(layers.lower, "target/x")
    (layers.lower / "link").symlink_to("target")
    put(layers.lower, "file")
    put(layers.upper, "link/x")
    put(layers.upper, "file/x")
    assert layers.changes() == {
        (b"/link", MODIFIED), (b"/link/x", ADDED), (b"/file", MODIFIED), (b"/file/x", ADDED),
    }  # fmt: skip


def test_a_directory_that_was_only_copied_up_is_no_change(layers: Layers) -> None:
    put(layers.lower, "d/e/f")
    (layers.upper / "d/e").mkdir(parents=True)
    assert layers.changes() == set()


def test_trees_are_compared_by_what_a_layer_can_say(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for tree in (old, new):
        for name in ("same", "d/mode", "d/time", "gone/x"):
            os.utime(put(tree, name), ns=LONG_AGO)
        for name in ("d", "gone"):
            os.utime(tree / name, ns=LONG_AGO)
    (new / "d/mode").chmod(0o600)
    os.utime(new / "d/time", ns=(0, 0))
    (new / "gone/x").unlink()
    (new / "gone").rmdir()
    (new / "link").symlink_to("same")
    assert tree_changes(old, new) == [
        Change(b"/d", MODIFIED), Change(b"/d/mode", MODIFIED), Change(b"/d/time", MODIFIED), Change(b"/gone", DELETED),
        Change(b"/link", ADDED),
    ]  # fmt: skip
    assert {change.kind for change in tree_changes(None, new)} == {ADDED}


def test_a_file_with_several_names_counts_once(tmp_path: Path) -> None:
    os.link(put(tmp_path, "d/one", "12345"), tmp_path / "two")
    put(tmp_path, "three", "1")
    (tmp_path / "link").symlink_to("four")
    assert content_size(tmp_path) == 5 + 1 + 4
