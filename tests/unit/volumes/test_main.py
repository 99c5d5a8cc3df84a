"""What keeps the program from starting is one line, with a documented exit status."""

from pathlib import Path

import pytest

from ducc.rootfs.state import only_one
from ducc.unixsocket import listen_privately
from volumes.main import main


def words(tmp_path: Path, **places: Path) -> list[str]:
    """Options with places of the test's, some of them others."""
    (tmp_path / "etc").mkdir(exist_ok=True)
    standard = {name: tmp_path / name for name in ("address", "root", "etc")}
    return [word for name, place in (standard | places).items() for word in (f"--{name}", str(place))]


def said(capsys: pytest.CaptureFixture) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("option", "place", "reason"),
    [
        ("address", Path("relative.sock"), "wanted an absolute path of 107 bytes at most"),
        ("address", Path("/run") / ("x" * 104), "wanted an absolute path of 107 bytes at most"),
        ("etc", Path("/nowhere/etc"), "there is no such directory"),
        ("root", Path("relative"), "wanted an absolute path"),
        ("root", Path("/dev/null/root"), "Not a directory"),
    ],
)
def test_places_that_cannot_be_used_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, option: str, place: Path, reason: str
) -> None:
    assert main(words(tmp_path, **{option: place})) == 2
    assert said(capsys).startswith(f"ducc-volumes: --{option} {place}: {reason}")


def test_two_plugins_do_not_work_on_the_same_mounts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "root").mkdir()
    with only_one(tmp_path / "root"):
        assert main(words(tmp_path)) == 110
    assert "another process works there" in said(capsys)


def test_a_damaged_state_is_left_for_somebody_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = tmp_path / "root" / "volumes.sqlite"
    state.parent.mkdir()
    state.write_bytes(b"damaged" * 1000)
    assert main(words(tmp_path)) == 110
    assert str(state) in said(capsys)
    assert state.read_bytes() == b"damaged" * 1000


def test_a_socket_at_which_somebody_answers_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with listen_privately(tmp_path / "address"):
        assert main(words(tmp_path)) == 111
    assert "another process listens" in said(capsys)
