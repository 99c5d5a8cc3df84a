"""The systemd unit: it says what the daemon does, and systemd thinks well of its sandbox."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from ducc.cli.main import COMMANDS
from ducc.daemon.loop import STOP_SECONDS

UNIT = Path(__file__).parents[3] / "packaging" / "ducc-loop@.service"
HIGHEST_EXPOSURE = 20  # of 100, by systemd's own count


@pytest.fixture(scope="module")
def service():
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def test_it_runs_the_loop_as_an_unprivileged_user_whom_systemd_watches(service):
    program, command, *_ = service["ExecStart"].split()
    assert (program, command in COMMANDS) == ("/usr/bin/ducc", True)
    assert (service["Type"], service["User"], service["CapabilityBoundingSet"]) == ("notify", "ducc", "")
    assert service["WatchdogSec"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_it_waits_longer_for_the_end_than_the_end_takes(service):
    assert int(service["TimeoutStopSec"].removesuffix("s")) > STOP_SECONDS + 2


@pytest.mark.parametrize(
    "words", [["verify", "--man=no"], ["security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}"]]
)
def test_systemd_finds_nothing_to_say(words, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / "ducc-loop@site.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/ducc", shutil.which("true")))
    done = subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
