"""The main thread: which lists are read when, and what the keepers are told."""

import os
import signal
import threading
import time

import pytest

from ducc.cli.loop import seconds
from ducc.daemon.loop import Loop, Slot
from ducc.daemon.systemd import Notifier
from ducc.errors import BadInput
from ducc.storage.base import Claimed
from ducc.transport import Unreachable
from ducc.wishlist.parse import parse_wishlist
from ducc.wishlist.sources import Change, Loaded

HOUR = 3600.0


def wishlist(fqrn, path):
    return parse_wishlist(f"version: 1\ncvmfs_repo: {fqrn}\ninput: ['https://r.example/a:1']\n".encode(), path)


class List:
    def __init__(self, fqrn, name="list", error=None):
        self.name, self.loads = name, 0
        self.error, self.wishlist = error, None if error else wishlist(fqrn, name)

    def load(self):
        self.loads += 1
        return Loaded(self.wishlist, Change.BAD if self.error else Change.NEW, self.error)


class Keeper:
    """Takes down what it is told."""

    def __init__(self, fqrn):
        self.fqrn, self.orders, self.reloads, self.ends = fqrn, [], 0, True

    def start(self):
        pass

    def order(self, order):
        self.orders.append(order)

    def reload(self):
        self.reloads += 1

    def stop(self):
        pass

    def join(self, seconds):
        return self.ends

    def counts(self):
        return dict.fromkeys(["granted", "pending", "failing"], 0)


def run(lists, during, interval=HOUR):
    """Run a loop over *lists*; *during* gets its keepers, then it is stopped. Returns whether all came to its end."""
    keepers = {}

    def open_keeper(fqrn, opened):
        keepers[fqrn] = Keeper(fqrn)
        return keepers[fqrn]

    def act():
        until(lambda: keepers and all(keeper.orders for keeper in keepers.values()))
        try:
            during(keepers)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with Loop([Slot(one, interval) for one in lists], open_keeper, Notifier({}), chance=lambda: 0.5) as loop:
        thread = threading.Thread(target=act)
        thread.start()
        ended = loop.run()
        thread.join()
    return ended, keepers


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lists_of_one_repository_are_ordered_together():
    lists = [List("a.example.org", "one"), List("a.example.org", "two"), List("b.example.org", "three")]
    ended, keepers = run(lists, lambda keepers: None)
    assert ended
    orders = {fqrn: [one.path for one in keeper.orders[0].lists] for fqrn, keeper in keepers.items()}
    assert orders == {"a.example.org": ["one", "two"], "b.example.org": ["three"]}


def test_a_list_is_read_again_in_its_interval():
    often = List("a.example.org")
    run([often], lambda keepers: until(lambda: often.loads >= 4), interval=0.02)


def test_sighup_reads_everything_at_once_and_in_a_hurry():
    lists = [List("a.example.org", "one"), List("b.example.org", "two")]

    def during(keepers):
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: all(len(keeper.orders) == 2 for keeper in keepers.values()))

    _, keepers = run(lists, during)
    assert [one.loads for one in lists] == [2, 2]
    assert {(keeper.reloads, keeper.orders[1].hurry) for keeper in keepers.values()} == {(1, True)}


def test_a_list_that_can_not_be_had_yet_is_no_reason_to_stop_but_makes_the_others_incomplete(caplog):
    away = List("", "away", Unreachable("silent"))
    _, keepers = run([List("a.example.org"), away], lambda keepers: None)
    assert not keepers["a.example.org"].orders[0].complete
    assert "there is no earlier one: source=away reason=silent" in caplog.text


def test_a_list_that_turns_bad_leaves_the_last_good_one_and_is_said_once(caplog):
    one = List("a.example.org")

    def during(keepers):
        one.error = BadInput("line 3")
        until(lambda: one.loads >= 4)

    _, keepers = run([one], during, interval=0.02)
    assert {order.lists for order in keepers["a.example.org"].orders} == {(one.wishlist,)}
    assert caplog.text.count("the last good one counts") == 1


def test_a_list_that_was_never_good_stops_the_start():
    with pytest.raises(BadInput, match="line 3"), Loop([Slot(List("", error=BadInput("line 3")), HOUR)], None, None):
        pytest.fail("it began")


def test_a_repository_that_somebody_else_keeps_stops_the_start():
    def open_keeper(fqrn, opened):
        raise Claimed("loop", "process 1")

    with pytest.raises(Claimed), Loop([Slot(List("a.example.org"), HOUR)], open_keeper, Notifier({})):
        pytest.fail("it began")


def test_what_does_not_end_is_told(caplog):
    def during(keepers):
        keepers["a.example.org"].ends = False

    assert run([List("a.example.org")], during)[0] is False
    assert "stopped in the middle" in caplog.text


def test_a_list_that_is_just_being_read_is_told_and_opens_nothing_any_more():
    one, begun, goes_on = List("a.example.org"), threading.Event(), threading.Event()

    def load():
        begun.set()
        goes_on.wait()
        return Loaded(wishlist("b.example.org", "list"), Change.NEW, None)

    def during(keepers):
        one.load = load
        os.kill(os.getpid(), signal.SIGHUP)
        assert begun.wait(60)

    ended, keepers = run([one], during)
    assert ended is False
    assert list(keepers) == ["a.example.org"]
    goes_on.set()


@pytest.mark.parametrize(("text", "number"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("14d", 14 * 86400)])
def test_times(text, number):
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["", "0", "0m", "-1", "1.5h", "10 m", "1w", "٣", "9999999999"])
def test_what_is_no_time_is_bad_input(text):
    with pytest.raises(BadInput):
        seconds(text)
