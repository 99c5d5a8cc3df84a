"""Orders to a mount, by signals to this process."""

import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ducc.client.orders import Orders


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_the_answer_to_what_was_asked_before_is_no_answer_to_a_reload(signals_as_before: None) -> None:
    repository = SimpleNamespace(manifest=SimpleNamespace(revision=1))
    head = SimpleNamespace(answered_as_of=0.0, offered=None, problem="")
    renewal = SimpleNamespace(is_outdated=lambda: False)
    orders = Orders(None, repository, head, None, renewal)  # type: ignore[arg-type]
    asked_before = time.monotonic()

    def answer() -> None:
        repository.manifest.revision = 2
        head.answered_as_of = time.monotonic()

    def heard(number: int, frame: object) -> None:
        head.answered_as_of = asked_before
        threading.Timer(0.1, answer).start()

    signal.signal(signal.SIGHUP, heard)
    assert orders.reload({}) == {"revision": 2}
