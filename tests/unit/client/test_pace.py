"""What is learned of how soon the kernel asks again."""

from ducc.client.pace import Pace
from ducc.client.wire import Op


def follow(pace: Pace, operation: int, was_soon: bool, times: int = 10) -> None:
    for _ in range(times):
        pace.answered(operation)
        pace.learn(was_soon)


def test_nothing_is_expected_before_it_was_seen_more_than_once() -> None:
    pace = Pace()
    assert not pace.is_soon()
    follow(pace, Op.LOOKUP, True, times=1)
    assert not pace.is_soon()


def test_each_kind_of_question_has_a_pace_of_its_own() -> None:
    pace = Pace()
    follow(pace, Op.LOOKUP, True)
    follow(pace, Op.READ, False)
    pace.answered(Op.LOOKUP)
    assert pace.is_soon()
    pace.answered(Op.READ)
    assert not pace.is_soon()


def test_one_pause_among_many_quick_questions_changes_nothing_and_several_do() -> None:
    pace = Pace()
    follow(pace, Op.LOOKUP, True)
    follow(pace, Op.LOOKUP, False, times=1)
    assert pace.is_soon()
    follow(pace, Op.LOOKUP, False, times=5)
    assert not pace.is_soon()


def test_operations_of_newer_kernels_are_no_fault() -> None:
    pace = Pace()
    follow(pace, 4096, True)
    assert pace.is_soon()
