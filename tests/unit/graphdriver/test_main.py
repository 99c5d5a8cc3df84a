"""What the program says of settings that it can't work with, and of a Docker that can't work with it."""

from pathlib import Path

import pytest

from graphdriver.docker import advice
from graphdriver.main import main, parser
from graphdriver.settings import DEFAULT_ADDRESS, DEFAULT_STATE, read_settings


@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ("", 2, "whose layers?"),
        ('repository = "a.test"\nstate = "{tmp}/file/state"', 2, "Not a directory"),
        ('repository = "a.test"\nroot = "/elsewhere"', 2, "root: no such setting"),
        ('repository = "a.test"\nstate = "{tmp}/state"\naddress = "{tmp}/file"', 111, "is not a socket"),
        ('repository = "a.test"\nstate = "{tmp}/state"\naddress = "{tmp}/file/s.sock"', 111, "can't listen at"),
    ],
)
def test_what_can_not_work_is_said_in_one_line(
    settings: str, status: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    config = tmp_path / "config.toml"
    config.write_text('log-level = "error"\n' + settings.replace("{tmp}", str(tmp_path)))
    assert main(["--config", str(config)]) == status
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ducc-graphdriver: ")]
    assert says in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_settings_are_the_files_and_options_win(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('repository = "a.example.org"\nlog-level = "debug"\ndeadline-seconds = 3\n')
    settings = read_settings(config, {"address": None, "state": "/srv/state"})
    assert (settings.address, settings.state) == (DEFAULT_ADDRESS, Path("/srv/state"))
    assert (settings.log_level, settings.deadline_seconds) == ("debug", 3.0)
    assert read_settings(config, {}).state == DEFAULT_STATE


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("Docker version 19.03.15, build 99e3ed8919", "older than any that was tried"),
        ("Docker version 20.10.24+dfsg1, build 297e128", None),
        ("Docker version 24.0.7, build 311b9ff", None),
        ("Docker version 26.1.5+dfsg1, build a72d7cd", None),
        ("Docker version 27.5.1, build 4c9b3b0", "DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS=1"),
        ("Docker version 28.5.2, build 89c5e8f", "ducc-snapshotter"),
        ("Docker version 30.0.0, build 0", "ducc-snapshotter"),
        ("", None),
        ("something else", None),
    ],
)
def test_a_docker_that_needs_something_else_is_told_what(version: str, says: str | None) -> None:
    told = advice(version)
    assert told is None if says is None else told is not None and says in told


def test_the_help_says_which_docker_and_what_else_there_is() -> None:
    told = parser().description or ""
    assert "Docker 20.10 to 27" in told
    assert "ducc-snapshotter" in told
