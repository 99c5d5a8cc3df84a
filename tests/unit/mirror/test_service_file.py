"""The mirror's systemd unit: it starts the program as it is, and leaves it no rights."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from ducc.cli.main import _parse

UNIT = Path(__file__).parents[3] / "packaging" / "ducc-mirror.service"
HIGHEST_EXPOSURE = 20  # of 100, by systemd's own count


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def test_it_listens_where_the_documentation_says(
    service: configparser.SectionProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in service["Environment"].split():
        monkeypatch.setenv(*setting.split("=", 1))
    monkeypatch.setenv("DUCC_REGISTRY", "/cvmfs/images.example.org")  # what an operator adds
    program, *words = service["ExecStart"].split()
    arguments = _parse(words)
    assert (program, arguments.host, arguments.port) == ("/usr/bin/ducc", "127.0.0.1", 5010)
    assert arguments.registry == [Path("/cvmfs/images.example.org")]


def test_it_is_nobody_in_particular_and_may_do_nothing(service: configparser.SectionProxy) -> None:
    assert (service["DynamicUser"], service["CapabilityBoundingSet"]) == ("yes", "")
    assert "AF_UNIX" not in service["RestrictAddressFamilies"]


@pytest.mark.parametrize(
    "words", [["verify", "--man=no"], ["security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}"]]
)
def test_systemd_finds_nothing_to_say(words: list[str], tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / "ducc-mirror.service"
    true = shutil.which("true")
    assert true is not None
    unit.write_text(UNIT.read_text().replace("/usr/bin/ducc", true))
    done = subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]
