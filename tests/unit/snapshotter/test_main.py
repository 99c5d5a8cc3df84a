"""What the program says of settings that it can't work with: one line and a status, never a traceback."""

from pathlib import Path

import pytest

from snapshotter.main import main


@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ("", 2, "whose layers?"),
        ('repository = "a.test"\nroot = "{tmp}/file/state"', 110, "Not a directory"),
        ('repository = "a.test"\nroot = "{tmp}/state"\naddress = "{tmp}/file"', 111, "is not a socket"),
        ('repository = "a.test"\nroot = "{tmp}/state"\naddress = "{tmp}/file/s.sock"', 111, "can't listen at"),
        ('repository = "a.test"\nroot = "{tmp}/state"\nmetrics-file = "{tmp}/no/f"', 2, "No such file"),
    ],
)  # fmt: skip
def test_what_can_not_work_is_said_in_one_line(
    settings: str, status: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    config = tmp_path / "config.toml"
    config.write_text(settings.replace("{tmp}", str(tmp_path)))
    assert main(["--config", str(config)]) == status
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "in the way"
