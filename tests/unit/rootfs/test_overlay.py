"""Mount options, and who is in use by the kernel's word. No mounts are made."""

from pathlib import Path

import pytest

from ducc.rootfs.mounts import MountEntry, parse_mountinfo
from ducc.rootfs.overlay import UnmountablePath, bind, directories_in_use, overlay, require_mountable

SNAPSHOTS = Path("/state/snapshots")


def test_lowers_are_said_topmost_first() -> None:
    mount = overlay([Path("/c"), Path("/b")], Path("/u"), Path("/w"))
    assert mount.options == ("index=off", "workdir=/w", "upperdir=/u", "lowerdir=/c:/b")
    assert overlay([Path("/c"), Path("/b")]).options == ("index=off", "lowerdir=/c:/b")


@pytest.mark.parametrize(
    "path", ["/a,upperdir=/etc", "/a:/etc", "/a b", "/a\nb", "/a\\", "/a\0", '/a"', "relative", "/a/../etc", "/\x7f"]
)
def test_no_path_can_smuggle_an_option_in(path: str) -> None:
    for attempt in (
        require_mountable,
        lambda bad: bind(bad, writable=True),
        lambda bad: overlay([bad, Path("/b")]),
        lambda bad: overlay([Path("/b")], bad, Path("/w")),
        lambda bad: overlay([Path("/b")], Path("/u"), bad),
    ):
        with pytest.raises(UnmountablePath) as caught:
            attempt(Path(path))
        assert len(str(caught.value).splitlines()) == 1


def entry(*options: str, at: str = "/mnt", kind: str = "overlay") -> MountEntry:
    return MountEntry(at, kind, options)


@pytest.mark.parametrize(
    ("mounts", "used"),
    [
        ([], set()),
        ([entry("rw", "lowerdir=/state/snapshots/2/fs:/state/snapshots/1/fs")], {"1", "2"}),
        (
            [entry("lowerdir=2/fs:1/fs", "upperdir=/state/snapshots/3/fs", "workdir=/state/snapshots/3/work")],
            set("123"),
        ),
        ([entry("lowerdir=2/fs:1/fs")], {"1", "2"}),
        ([entry("lowerdir=2/fs", "upperdir=/elsewhere/3/fs", "workdir=/elsewhere/3/work")], set()),
        ([entry("rw", at="/state/snapshots/7/fs/dir", kind="tmpfs")], {"7"}),
        ([entry("lowerdir=/state/snapshots-other/2/fs")], set()),
    ],
)
def test_directories_in_use_are_known_by_the_kernels_table(mounts: list[MountEntry], used: set[str]) -> None:
    assert directories_in_use(mounts, SNAPSHOTS) == used


def test_the_kernels_table_is_read_with_blanks_and_without_optional_fields() -> None:
    lines = [
        r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue",
        "40 35 0:50 / /run/rootfs rw - overlay overlay rw,lowerdir=a:b,upperdir=/u",
    ]
    assert parse_mountinfo(lines) == [
        MountEntry("/mnt 2", "ext3", ("rw", "errors=continue")),
        MountEntry("/run/rootfs", "overlay", ("rw", "lowerdir=a:b", "upperdir=/u")),
    ]
