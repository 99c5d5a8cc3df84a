"""What health checks of containers ask, of real programs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ducc import health
from ducc.serving import listen
from ducc.unixsocket import listen_privately

LIVELY = """
import os, signal, socket, sys, time
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = "\\0" + os.environ["NOTIFY_SOCKET"][1:]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
sender.sendto(b"READY=1\\nSTATUS=ready", address)
assert int(os.environ["WATCHDOG_USEC"]) == 120_000_000
time.sleep(60)
"""
WATCH = """
import sys
from pathlib import Path
from ducc import health
_, alive, seconds, *command = sys.argv
health.SILENCE_SECONDS = int(seconds)
sys.exit(health.watch(command, Path(alive)))
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"there is no {path}"
        time.sleep(0.02)


@pytest.mark.parametrize("words", [[], ["nothing"], ["watch"], ["http", "http://127.0.0.1:1/"]])
def test_what_is_not_well_or_not_known_is_said_in_one_line(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert health.main(words) != 0
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_that_does_not_speak_is_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_ANSWER_SECONDS", 0.2)
    with listen("127.0.0.1", 0) as tcp, listen_privately(tmp_path / "s.sock"):
        assert health.main(["http", f"http://127.0.0.1:{tcp.getsockname()[1]}/"]) == 1
        assert health.main(["plugin", str(tmp_path / "s.sock")]) == 1
        assert health.main(["grpc", str(tmp_path / "s.sock")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_daemon_is_well_while_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = tmp_path / "alive"
    monkeypatch.setattr(health, "ALIVE", alive)
    assert health.main(["daemon"]) == 1
    alive.touch()
    assert health.main(["daemon"]) == 0
    os.utime(alive, (0, 0))
    assert health.main(["daemon"]) == 1


def test_a_watched_program_is_heard_told_of_signals_and_its_status_returned(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        sys.executable,
        "-c",
        WATCH,
        alive,
        "120",
        sys.executable,
        "-c",
        LIVELY,
    ]
    with subprocess.Popen(command) as process:
        wait_for(alive)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 7


HASTY = """
import os, signal, subprocess, sys
from pathlib import Path
from ducc import health

class Hasty(subprocess.Popen):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        os.kill(os.getpid(), signal.SIGTERM)

health.subprocess.Popen = Hasty
sys.exit(health.watch(["sleep", "600"], Path(sys.argv[1])))
"""


def test_a_signal_that_comes_as_the_program_is_started_is_passed_on(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HASTY, tmp_path / "alive"], timeout=120, check=False)
    assert done.returncode == 128 + signal.SIGTERM


def test_a_watched_program_that_falls_silent_is_killed(tmp_path: Path) -> None:
    silent = LIVELY.replace("120_000_000", "1_000_000")
    command = [sys.executable, "-c", WATCH, tmp_path / "alive", "1", sys.executable, "-c", silent]
    assert subprocess.run(command, timeout=120, check=False).returncode == 128 + signal.SIGKILL
