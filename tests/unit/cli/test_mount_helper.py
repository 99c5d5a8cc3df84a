"""What mount(8) asks for, in words of `ducc mount`."""

import pytest

from ducc.cli.mount_helper import translated
from ducc.errors import BadInput

PLACES = ["repo.example.org", "/mnt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("rw,_netdev", []),
        ("etc=/etc/cvmfs,cache_limit=2", ["--etc=/etc/cvmfs", "--cache-limit=2"]),
        ("nodev,no_xattrs,ro", ["--no-xattrs"]),
        ("no_prefetch", ["--no-prefetch"]),
        ("no_xattrs=yes", []),  # nothing that mount knows, nor we
        ("etc=", []),
    ],
)
def test_options_of_ours_are_those_of_the_command_and_others_change_nothing(options: str, words: list[str]) -> None:
    assert list(translated([*PLACES, "-o", options])) == ["mount", *words, *PLACES]


def test_whatever_is_configured_can_be_shown_without_attributes() -> None:
    assert list(translated(["none", "/cvmfs", "-o", "all,no_xattrs"])) == ["mount", "--no-xattrs", "--all=/cvmfs"]


def test_a_mount_can_not_be_changed() -> None:
    with pytest.raises(BadInput, match="unmount and mount it"):
        list(translated([*PLACES, "-o", "remount,no_xattrs"]))
