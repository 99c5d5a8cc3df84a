"""The systemd unit: it starts the program as it is, and gives it no more of root than it needs."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from ducc.rootfs.state import StateUnusable
from ducc.unixsocket import SocketTaken
from snapshotter.settings import DEFAULT_ADDRESS, DEFAULT_CONFIG, DEFAULT_ROOT

UNIT = Path(__file__).parents[3] / "packaging" / "ducc-snapshotter.service"
HIGHEST_EXPOSURE = 30  # of 100, by systemd's own count


@pytest.fixture(scope="module")
def service():
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def test_its_places_are_those_of_the_program(service):
    assert service["ExecStart"] == f"/usr/bin/ducc-snapshotter --config {DEFAULT_CONFIG}"
    assert Path("/var/lib") / service["StateDirectory"] == DEFAULT_ROOT
    assert Path("/run") / service["RuntimeDirectory"] == DEFAULT_ADDRESS.parent


def test_it_can_neither_mount_nor_reach_a_network(service):
    assert "SYS_ADMIN" not in service["CapabilityBoundingSet"]
    assert (service["PrivateNetwork"], service["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")


def test_it_is_started_again_unless_somebody_has_to_mend_something(service):
    kept = set(map(int, service["RestartPreventExitStatus"].split()))
    assert StateUnusable.exit_code in kept
    assert SocketTaken.exit_code not in kept


@pytest.mark.parametrize(
    "words", [["verify", "--man=no"], ["security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}"]]
)
def test_systemd_finds_nothing_to_say(words, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / "ducc-snapshotter.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/ducc-snapshotter", shutil.which("true")))
    done = subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
