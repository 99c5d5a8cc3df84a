from collections.abc import Sequence

from ducc.client.network.choices import Choices


def as_given(names: list[str]) -> None:
    """In place of shuffling."""


def choices(*groups: Sequence[str], reset_seconds: float = 300) -> Choices:
    return Choices(groups, reset_seconds, as_given)


def test_all_of_a_group_come_before_all_of_the_next() -> None:
    assert choices("ab", "cd", "a").in_order(0) == ["a", "b", "c", "d"]


def test_what_failed_is_passed_over_until_its_time_is_up_and_then_preferred_again() -> None:
    some = choices("ab", "c")
    assert some.failed("a", 1000)
    assert not some.failed("a", 1000)
    assert [some.in_order(now)[0] for now in (1000, 1299, 1300)] == ["b", "b", "a"]


def test_the_next_group_is_asked_when_the_whole_of_the_one_before_has_failed() -> None:
    some = choices("ab", "cd")
    some.failed("b", 0)
    assert some.in_order(1) == ["a", "c", "d", "b"]
    some.failed("a", 1)
    assert some.in_order(2) == ["c", "d", "b", "a"]


def test_when_all_have_failed_all_are_asked_the_one_that_failed_first_before_the_others() -> None:
    some = choices("abc")
    for now, name in enumerate("cab"):
        some.failed(name, now)
    assert some.in_order(3) == ["c", "a", "b"]


def test_what_answers_again_is_no_longer_passed_over() -> None:
    some = choices("ab")
    assert not some.worked("a")
    some.failed("a", 0)
    assert some.worked("a")
    assert some.in_order(1) == ["a", "b"]


def test_without_a_reset_time_a_failure_counts_until_it_answers() -> None:
    some = choices("ab", reset_seconds=0)
    some.failed("a", 0)
    assert some.in_order(10**9) == ["b", "a"]


def test_many_clients_spread_over_the_members_of_a_group_and_each_stays_with_one() -> None:
    first = [some.in_order(0)[0] for some in (Choices(["abcd", "e"], 300) for _ in range(400))]
    assert all(60 < first.count(name) < 140 for name in "abcd")
    some = Choices(["abcd"], 300)
    assert len({some.in_order(now)[0] for now in range(100)}) == 1
