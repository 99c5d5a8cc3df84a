import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ducc.client import background
from ducc.client.background import Start, StartFailed, go_on, in_background
from ducc.errors import BadInput


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def worker_that(behaves: Callable[[Start, int], None], directory: Path) -> Callable[[Start], None]:
    """A worker that notes its process in *directory*, and then does as it is told, knowing how many came before."""

    def work(start: Start) -> None:
        earlier = len(list(directory.glob("worker-*")))
        (directory / f"worker-{earlier}").write_text(f"{os.getpid()} {os.getppid()}")
        behaves(start, earlier)

    return work


def started(directory: Path, number: int) -> tuple[int, int]:
    """The process ids of a worker and of its watcher."""
    path = directory / f"worker-{number}"
    wait_for(lambda: path.exists() and re.fullmatch(r"\d+ \d+", path.read_text()))
    worker, watcher = map(int, path.read_text().split())
    return worker, watcher


def wait_for_end(process: int) -> None:
    """It has ended, though perhaps nobody has taken note of that yet."""
    status = Path(f"/proc/{process}/stat")

    def has_ended() -> bool:
        try:
            return status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
            return True

    wait_for(has_ended)


def stay(start: Start, earlier: int) -> None:
    start.ready()
    time.sleep(60)


def test_the_caller_goes_on_when_the_worker_is_ready(tmp_path: Path) -> None:
    in_background(worker_that(stay, tmp_path), tmp_path / "log")
    worker, watcher = started(tmp_path, 0)
    os.kill(watcher, signal.SIGTERM)  # passed on
    wait_for_end(worker)
    wait_for_end(watcher)


def test_a_start_that_fails_fails_in_front_of_the_caller(tmp_path: Path) -> None:
    def fail(start: Start, earlier: int) -> None:
        raise BadInput("so it is")

    with pytest.raises(StartFailed, match="so it is") as caught:
        in_background(worker_that(fail, tmp_path), tmp_path / "log")
    assert caught.value.exit_code == BadInput.exit_code
    wait_for_end(started(tmp_path, 0)[1])
    assert not (tmp_path / "worker-1").exists()


def test_another_worker_follows_a_killed_one_and_has_its_line(tmp_path: Path) -> None:
    def hold_a_line(start: Start, earlier: int) -> None:
        if earlier == 0:
            line = os.open(tmp_path / "line", os.O_RDWR | os.O_CREAT)
            start.keep(line)
            start.ready()
            time.sleep(60)
        assert start.line is not None
        os.write(start.line, b"the next one")

    in_background(worker_that(hold_a_line, tmp_path), tmp_path / "log")
    worker, watcher = started(tmp_path, 0)
    os.kill(worker, signal.SIGKILL)
    wait_for_end(watcher)  # since the second has ended well
    assert (tmp_path / "line").read_bytes() == b"the next one"


def test_a_worker_that_says_nothing_for_too_long_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_LONGEST_SILENCE_SECONDS", 3.0)
    monkeypatch.setattr(background, "BEAT_SECONDS", 0.05)

    def get_stuck(start: Start, earlier: int) -> None:
        start.ready()
        start.alive()
        if earlier == 0:
            time.sleep(600)
        start.alive()

    in_background(worker_that(get_stuck, tmp_path), tmp_path / "log")
    wait_for_end(started(tmp_path, 0)[0])
    wait_for_end(started(tmp_path, 1)[1])
    assert not (tmp_path / "worker-2").exists()


def test_a_worker_that_asks_for_it_is_succeeded_by_another_program_with_its_line(tmp_path: Path) -> None:
    def leave(start: Start, earlier: int) -> None:
        start.keep(os.open(tmp_path / "line", os.O_RDWR | os.O_CREAT))
        start.ready()
        assert start.succeed()

    script = "import os, sys; os.write(int(sys.argv[1]), f'{os.getpid()}'.encode())"
    in_background(worker_that(leave, tmp_path), tmp_path / "log", [sys.executable, "-c", script])
    _, watcher = started(tmp_path, 0)
    wait_for_end(watcher)
    assert (tmp_path / "line").read_text() == str(watcher)  # who waits for that process, goes on doing so
    assert not (tmp_path / "worker-1").exists()


def test_a_worker_that_fails_with_its_line_open_before_it_is_ready_is_not_followed_by_another(tmp_path: Path) -> None:
    def fail(start: Start, earlier: int) -> None:
        start.keep(os.open(tmp_path / "line", os.O_RDWR | os.O_CREAT))
        raise BadInput("no luck")

    with pytest.raises(StartFailed, match="no luck"):
        in_background(worker_that(fail, tmp_path), tmp_path / "log")
    wait_for_end(started(tmp_path, 0)[1])
    assert not (tmp_path / "worker-1").exists()


def test_a_signal_is_passed_on_to_a_worker_that_is_just_being_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the fork and the moment in which the watcher knows whom it has started."""
    fork = os.fork

    def signalled_fork() -> int:
        child = fork()
        if child and (tmp_path / "watching").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return child

    def stay_for_long(start: Start, earlier: int) -> None:
        time.sleep(600)

    watcher = fork()
    if watcher == 0:
        (tmp_path / "watching").touch()
        monkeypatch.setattr(os, "fork", signalled_fork)
        line = os.open(tmp_path / "line", os.O_RDWR | os.O_CREAT)
        os._exit(go_on(worker_that(stay_for_long, tmp_path), line, []))
    wait_for(lambda: os.waitpid(watcher, os.WNOHANG)[0])


def test_who_is_alive_does_not_wait_for_a_watcher_that_is_stopped(tmp_path: Path) -> None:
    def speak_on(start: Start, earlier: int) -> None:
        start.ready()
        os.kill(os.getppid(), signal.SIGSTOP)
        for _ in range(10_000):
            start.alive()
        os.kill(os.getppid(), signal.SIGCONT)

    in_background(worker_that(speak_on, tmp_path), tmp_path / "log")
    worker, watcher = started(tmp_path, 0)
    try:
        wait_for_end(worker)
        wait_for_end(watcher)
    finally:
        for process in (worker, watcher):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_a_program_that_goes_on_with_a_line_watches_its_worker(tmp_path: Path) -> None:
    def take_the_line(start: Start, earlier: int) -> None:
        assert start.line is not None
        os.write(start.line, b"%d" % earlier)
        if earlier == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        line = os.open(tmp_path / "line", os.O_RDWR | os.O_CREAT)
        os._exit(go_on(worker_that(take_the_line, tmp_path), line, []))
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "line").read_bytes() == b"01"


def test_who_is_not_watched_can_not_be_succeeded(tmp_path: Path) -> None:
    assert not Start(lambda: None).succeed()

    def ask(start: Start, earlier: int) -> None:
        (tmp_path / "said").write_text(str(start.succeed()))
        start.ready()

    in_background(worker_that(ask, tmp_path), tmp_path / "log")  # no command for it
    assert (tmp_path / "said").read_text() == "False"


def test_a_worker_goes_on_when_its_watcher_is_killed(tmp_path: Path) -> None:
    def speak_to_nobody(start: Start, earlier: int) -> None:
        start.ready()
        wait_for_end(os.getppid())
        start.alive()
        (tmp_path / "done").touch()

    in_background(worker_that(speak_to_nobody, tmp_path), tmp_path / "log")
    os.kill(started(tmp_path, 0)[1], signal.SIGKILL)
    wait_for((tmp_path / "done").exists)
