"""Signals as something to wait for."""

import os
import signal
import threading
import time

import pytest

from ducc.daemon.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_wait_and_is_told(number):
    with Signals() as signals:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        assert signals.wait(60) == {number}


def test_a_signal_that_came_before_is_not_lost():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.wait(60) == {signal.SIGTERM, signal.SIGHUP}
        assert signals.wait(0) == set()


def test_other_threads_wake_it_any_number_of_times():
    with Signals() as signals:
        for _ in range(100_000):
            signals.wake()
        started = time.monotonic()
        assert signals.wait(600) == set()
    assert time.monotonic() - started < 60


def test_afterwards_signals_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_wakes_too_late_disturbs_nobody():
    with Signals() as signals:
        pass
    reader, writer = os.pipe2(os.O_NONBLOCK)  # may have the numbers that the other pipe had
    signals.wake()
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)
