"""systemd's units: systemd has nothing to say against them, and they start programs that there are."""

import configparser
import subprocess
from importlib.metadata import distribution
from pathlib import Path

import pytest

from ducc.cli.main import COMMANDS
from ducc.unixsocket import SocketTaken
from tests.needs import need_program
from tests.volume_plugin import CAPABILITIES
from volumes.main import ROOT

PACKAGING = Path(__file__).parents[3] / "packaging"
UNITS = sorted(path.name for path in PACKAGING.iterdir() if path.suffix in (".service", ".timer"))
EXPOSURE = {"ducc-serve.service": 20, "ducc-prune@.service": 20}  # of 100, by systemd's own count, at most


def service(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((PACKAGING / name).read_text())
    return parser["Service"]


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_to_say(name: str, tmp_path: Path) -> None:
    verify(["verify", "--man=no"], name, tmp_path)


@pytest.mark.parametrize("name", EXPOSURE)
def test_what_needs_no_rights_is_in_a_sandbox(name: str, tmp_path: Path) -> None:
    verify(["security", "--offline=yes", f"--threshold={EXPOSURE[name]}"], name, tmp_path)


def verify(words: list[str], name: str, directory: Path) -> None:
    """All units lie side by side, since some name others; programs that are not installed are stood in for."""
    need_program("systemd-analyze")
    for unit in UNITS:
        text = (PACKAGING / unit).read_text()
        for script in sorted(scripts(), key=len, reverse=True):
            text = text.replace(f"/usr/bin/{script} ", f"{need_program('true')} ").replace(
                f"/usr/bin/{script}\n", f"{need_program('true')}\n"
            )
        (directory / unit.replace("@.", "@site.")).write_text(text)
    unit = directory / name.replace("@.", "@site.")
    done = subprocess.run(["systemd-analyze", *words, unit], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3000:]


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_each_service_starts_a_program_and_a_command_that_there_are(name: str) -> None:
    program, *words = service(name)["ExecStart"].split()
    assert program.removeprefix("/usr/bin/") in scripts()
    assert program != "/usr/bin/ducc" or words[0] in COMMANDS


def scripts() -> set[str]:
    return {script.name for script in distribution("ducc").entry_points.select(group="console_scripts")}


def test_volumes_have_no_more_rights_than_they_were_tested_with_and_outlive_the_plugin() -> None:
    unit = service("ducc-volumes.service")
    left = {word.removeprefix("+").upper() for word in CAPABILITIES.split(",")[1:]}
    assert set(unit["CapabilityBoundingSet"].split()) == {f"CAP_{name}" for name in left}
    assert Path("/var/lib") / unit["StateDirectory"] == ROOT
    assert unit["KillMode"] == "process"
    assert str(SocketTaken.exit_code) not in unit["RestartPreventExitStatus"].split()


@pytest.mark.parametrize("name", ["ducc-mount@.service", "ducc-volumes.service"])
def test_what_mounts_for_others_has_no_namespace_of_its_own(name: str) -> None:
    hiding = ("PrivateTmp", "ProtectSystem", "ProtectHome", "PrivateDevices", "PrivateMounts", "ProtectKernelTunables")
    assert not [option for option in hiding if option in service(name)]
