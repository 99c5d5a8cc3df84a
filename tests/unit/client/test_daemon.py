"""The process behind a mount, with a line to nobody in place of the kernel."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ducc.client.daemon import HangUps, _answer_and_follow, _start
from ducc.client.mountpoint import MountFailed
from ducc.client.renewal import Renewal

PATIENCE_SECONDS = 60


class Line:
    """Answers nobody until it is told to end."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def serve(self) -> None:
        assert self._ended.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        self._ended.set()


class Followed:
    """A repository that notes when it is asked for something newer, and says then what a test tells it."""

    def __init__(self, *answers: Callable[[], None]) -> None:
        self.manifest = SimpleNamespace(ttl_seconds=240, revision=1)
        self.tree = SimpleNamespace(untold=[])
        self.questions: list[bytes | None] = []
        self._answers = list(answers)

    def newer_manifest(self, pushed: bytes | None) -> None:
        self.questions.append(pushed)
        if self._answers:
            self._answers.pop(0)()


def run(
    repository: Followed, line: Line, hang_ups: HangUps, start: Callable[[], None] = lambda: None, pause: float = 0.001
) -> None:
    settings = SimpleNamespace(notices_url="", pause_seconds=lambda seconds: pause)
    asyncio.run(_answer_and_follow(settings, repository, line, start, hang_ups))  # type: ignore[arg-type]


@pytest.fixture
def hang_ups() -> Iterator[HangUps]:
    before = signal.getsignal(signal.SIGHUP)
    yield HangUps()
    signal.signal(signal.SIGHUP, before)


def test_a_start_that_fails_ends_the_mount_and_says_why(tmp_path: Path, hang_ups: HangUps) -> None:
    def start() -> None:
        _start(Followed(), Line(), tmp_path / "gone", lambda: pytest.fail("it is not ready"))  # type: ignore[arg-type]

    with pytest.raises(MountFailed, match="does not answer: No such file"):
        run(Followed(), Line(), hang_ups, start)


def test_a_fault_while_it_follows_is_told_and_the_next_revision_is_asked_for_all_the_same(
    hang_ups: HangUps, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line()
    repository = Followed(lambda: {}[1], line.end)
    run(repository, line, hang_ups)
    assert "by a fault of this program" in caplog.text
    assert len(repository.questions) >= 2


def test_a_hang_up_that_comes_too_early_is_obeyed_later_and_one_that_comes_too_late_ends_nothing(
    hang_ups: HangUps,
) -> None:
    line = Line()
    repository = Followed(line.end)
    os.kill(os.getpid(), signal.SIGHUP)
    run(repository, line, hang_ups, pause=PATIENCE_SECONDS)
    assert repository.questions == [None]
    os.kill(os.getpid(), signal.SIGHUP)
    assert repository.questions == [None]


def test_who_is_to_make_way_before_it_is_known_how_does_so_when_it_is() -> None:
    made: list[float] = []
    renewal = Renewal(SimpleNamespace(succeed=lambda: True), ["true"])  # type: ignore[arg-type]
    renewal.begin()
    renewal.proceed()
    renewal.by(lambda: made.append(time.monotonic()))
    assert len(made) == 1
