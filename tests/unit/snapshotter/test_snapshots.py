"""What becomes of a snapshot, and what is refused, without a disk."""

import pytest

from ducc.rootfs.disk import Usage
from snapshotter.snapshots import (
    InvalidRequest,
    Kind,
    Snapshot,
    WrongState,
    committed,
    relabelled,
    require_labels,
    require_name,
    require_parent,
)

ACTIVE = Snapshot(7, "key", "below", Kind.ACTIVE, {"one": "1"}, 10, 10)


def test_a_committed_snapshot_keeps_number_and_parent_and_nothing_else() -> None:
    made = committed(ACTIVE, "name", "", {"two": "2"}, Usage(5, 6), 20)
    assert made == Snapshot(7, "name", "below", Kind.COMMITTED, {"two": "2"}, 20, 20, Usage(5, 6))


@pytest.mark.parametrize("kind", [Kind.VIEW, Kind.COMMITTED])
def test_only_active_snapshots_can_be_committed_and_only_committed_ones_be_below(kind: Kind) -> None:
    other = Snapshot(7, "key", "", kind, {}, 0, 0)
    with pytest.raises(WrongState):
        committed(other, "name", "", {}, Usage(), 0)
    for parent in (ACTIVE, Snapshot(7, "key", "", Kind.VIEW, {}, 0, 0)):
        with pytest.raises(InvalidRequest):
            require_parent(parent)


@pytest.mark.parametrize(
    ("labels", "paths", "left"),
    [
        ({"two": "2"}, [], {"two": "2"}),
        ({"two": "2"}, ["labels"], {"two": "2"}),
        ({"two": "2"}, ["labels.two"], {"one": "1", "two": "2"}),
        ({}, ["labels.one"], {}),
        ({"a.b/c": "3"}, ["labels.a.b/c"], {"one": "1", "a.b/c": "3"}),
    ],
)
def test_labels_change_as_the_mask_says(labels: dict[str, str], paths: list[str], left: dict[str, str]) -> None:
    changed = relabelled(ACTIVE, labels, paths, 20)
    assert changed.labels == left
    assert (changed.created_ns, changed.updated_ns) == (10, 20)


@pytest.mark.parametrize("path", ["parent", "kind", "name", "labelsx", "", "created_at"])
def test_nothing_but_labels_changes(path: str) -> None:
    with pytest.raises(InvalidRequest):
        relabelled(ACTIVE, {}, [path], 20)


def test_names_and_labels_have_limits() -> None:
    assert require_name("n" * 4096)
    assert require_labels({"a": "b" * 4095, "empty": ""}) == {"a": "b" * 4095}
    for name in ("", "n" * 4097, "ä" * 2049):
        with pytest.raises(InvalidRequest):
            require_name(name)
    for labels in ({"a": "b" * 4096}, {f"{number}": "x" for number in range(1001)}):
        with pytest.raises(InvalidRequest):
            require_labels(labels)
