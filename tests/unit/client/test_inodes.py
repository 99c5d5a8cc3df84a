from hypothesis import given
from hypothesis import strategies as st

from ducc.client.inodes import ROOT_INODE, Inodes, Numbering


def numbers(numbering: Numbering, rows: int) -> list[int]:
    return [numbering.inode(rowid) for rowid in range(1, rows + 1)]


def test_every_row_of_every_catalog_has_a_number_of_its_own() -> None:
    inodes = Inodes[str]()
    one, other = inodes.number("one", 10), inodes.number("other", 5)
    everything = numbers(one, 10) + numbers(other, 5)
    assert len(set(everything)) == 15
    assert ROOT_INODE not in everything
    assert [inodes.owner(inode) for inode in everything] == ["one"] * 10 + ["other"] * 5
    assert [one.rowid(inode) for inode in numbers(one, 10)] == list(range(1, 11))
    assert one.rowid(other.inode(1)) == 0


def test_numbers_that_were_never_given_belong_to_nobody() -> None:
    inodes = Inodes[str]()
    assert inodes.owner(ROOT_INODE) is None
    numbering = inodes.number("one", 3)
    assert numbering.rowid(numbering.inode(3) + 1) == 0


def test_what_is_forgotten_never_comes_back() -> None:
    inodes = Inodes[str]()
    gone = numbers(inodes.number("gone", 3), 3)
    inodes.forget("gone")
    later = numbers(inodes.number("later", 3), 3)
    assert not set(gone) & set(later)
    assert inodes.owner(gone[0]) is None


@given(st.lists(st.tuples(st.integers(0, 30), st.randoms(use_true_random=False)), min_size=1, max_size=8))
def test_through_any_successions_what_is_kept_keeps_its_number_and_no_number_is_used_twice(successions) -> None:
    inodes = Inodes[str]()
    rows = 10
    numbering = inodes.number("catalog", rows)
    seen = set(numbers(numbering, rows))
    for new_rows, random in successions:
        both = min(rows, new_rows)
        count = random.randint(0, both)
        kept = list(
            zip(random.sample(range(1, rows + 1), count), random.sample(range(1, new_rows + 1), count), strict=True)
        )
        before, after = numbering, inodes.renumber("catalog", numbering, kept, new_rows)
        now = numbers(after, new_rows)
        assert len(set(now)) == new_rows
        assert all(after.inode(new) == before.inode(old) for old, new in kept)
        fresh = set(now) - {before.inode(old) for old, _ in kept}
        assert not fresh & seen
        assert [after.rowid(inode) for inode in now] == list(range(1, new_rows + 1))
        assert not any(after.rowid(inode) for inode in seen - set(now))
        assert all(inodes.owner(inode) == "catalog" for inode in now)
        numbering, rows, seen = after, new_rows, seen | set(now)
