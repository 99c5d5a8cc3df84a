"""containerd's filter grammar, by vectors."""

import pytest

from snapshotter.filters import any_of
from snapshotter.snapshots import InvalidRequest, Kind, Snapshot

LABELS = {"plain": "1", "a.b/c": "x y", "containerd.io/snapshot.ref": "sha256:1"}
ONE = Snapshot(1, "name-1", "", Kind.COMMITTED, LABELS, 0, 0)
TWO = Snapshot(2, "two", "name-1", Kind.ACTIVE, {}, 0, 0)


@pytest.mark.parametrize(
    ("filters", "fitting"),
    [
        ([], {1, 2}),
        ([""], {1, 2}),
        (["name==two"], {2}),
        (["name!=two"], {1}),
        (['name=="two"'], {2}),
        ([r'name=="t\x77o"'], {2}),
        (["name~=^name"], {1}),
        (['name~="[0-9]$"'], {1}),
        (["parent"], {2}),
        (['parent==""'], {1}),
        (["kind==committed"], {1}),
        (["kind==active,parent==name-1"], {2}),
        (["kind==active,parent==other"], set()),
        (["name==name-1", "kind==active"], {1, 2}),
        (["labels.plain"], {1}),
        (["labels.plain==1"], {1}),
        (["labels.plain!=1"], {2}),
        (['labels."a.b/c"=="x y"'], {1}),
        (['labels."containerd.io/snapshot.ref"==sha256:1,parent==""'], {1}),
        (["unknown==x"], set()),
        (["name.more==two"], set()),
    ],
)
def test_a_filter_chooses(filters: list[str], fitting: set[int]) -> None:
    wanted = any_of(filters)
    assert {snapshot.number for snapshot in (ONE, TWO) if wanted(snapshot)} == fitting


@pytest.mark.parametrize(
    "nonsense",
    ["=", "==x", "name==", "name==a,", ",", "name==a name", '"', 'name=="', r'name=="\x"', "name~=(", "9name", "a..b",
     "name~=" + "a" * 2000, "n" * 70_000],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused_in_one_line(nonsense: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        any_of([nonsense])
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000
