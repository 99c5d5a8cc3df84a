"""Settings as operators write them: the CernVM-FS plugin's file, ours, and what is wrong in one line."""

from pathlib import Path

import pytest

from ducc.errors import BadInput
from ducc.rootfs.locate import MountedRepository
from ducc.rootfs.second_mount import SecondMount
from snapshotter.settings import DEFAULT_ADDRESS, Settings, read_settings


def read(tmp_path: Path, text: str, **options: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return read_settings(file, {name.replace("_", "-"): value for name, value in options.items()})


def test_the_existing_file_is_read(tmp_path: Path) -> None:
    settings = read(tmp_path, 'repository = "unpacked.cern.ch"\nabsolute-mountpoint = "/cvmfs/here"\n')
    assert settings.repositories == (MountedRepository("unpacked.cern.ch", Path("/cvmfs/here")),)
    assert settings.address == DEFAULT_ADDRESS
    (only,) = read(tmp_path, 'repository = "a.example.org"').repositories
    assert only.mountpoint == Path("/cvmfs/a.example.org")


@pytest.mark.parametrize(
    "text",
    [
        'repository = "a"\nmountpoint-without-xattrs = "/mnt/second"',
        '[[repositories]]\nname = "a"\nmountpoint-without-xattrs = "/mnt/second"',
    ],
)
def test_a_repository_may_be_mounted_a_second_time(text: str, tmp_path: Path) -> None:
    (only,) = read(tmp_path, text).repositories
    assert only == MountedRepository("a", Path("/cvmfs/a"), SecondMount("a", Path("/mnt/second")))


def test_several_repositories_keep_their_order_and_options_win(tmp_path: Path) -> None:
    text = """
        address = "/run/file.sock"
        root = "/srv/state"
        metrics-file = "/var/lib/metrics/ducc.prom"
        deadline-seconds = 2.5
        [[repositories]]
        name = "b.example.org"
        [[repositories]]
        name = "a.example.org"
        mountpoint = "/mnt/a"
    """
    settings = read(tmp_path, text, address="unix:///run/option.sock", log_level="debug")
    assert [str(repository.mountpoint) for repository in settings.repositories] == ["/cvmfs/b.example.org", "/mnt/a"]
    assert (settings.address, settings.root) == (Path("/run/option.sock"), Path("/srv/state"))
    assert (settings.log_level, settings.deadline_seconds) == ("debug", 2.5)
    assert settings.metrics_file == Path("/var/lib/metrics/ducc.prom")


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "repository = 1", 'repository = "../etc"', 'repository = "a,b"', 'repositories = "x"',
        "repositories = [1]", '[[repositories]]\nmountpoint = "/x"', '[[repositories]]\nname = "a"\nother = 1',
        'repository = "a"\nabsolute-mountpoint = "relative"', 'repository = "a"\nabsolute-mountpoint = "/a,b"',
        'repository = "a"\nabsolute-mountpoint = "/a:b"', 'repository = "a"\nroot = "/with blank"',
        'repository = "a"\nunknown = 1', 'repository = "a"\nlog-level = "loud"', 'repository = "a"\nlog-json = "yes"',
        'repository = "a"\ndeadline-seconds = 0', 'repository = "a"\ndeadline-seconds = "x"',
        'repository = "a"\naddress = "relative"', 'repository = "a"\naddress = "/' + "x" * 200 + '"',
        'repository = "a"\n[[repositories]]\nname = "b"',
        '[[repositories]]\nname = "a"\nmountpoint = "/x"\n[[repositories]]\nname = "b"\nmountpoint = "/x"',
        'repository = "a"\nmountpoint-without-xattrs = "/cvmfs/a"', 'mountpoint-without-xattrs = "/x"',
        'repository = "a"\nmountpoint-without-xattrs = "/x:y"', 'repository = "a"\nmountpoint-without-xattrs = 1',
        'mountpoint-without-xattrs = "/y"\n[[repositories]]\nname = "a"\nmountpoint = "/x"',
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_that_names_the_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "config.toml"))
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.toml: can't be used"):
        read_settings(tmp_path / "none.toml", {})
