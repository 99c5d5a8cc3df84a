"""Where a layer is, or why it can't be had. `/` stands for a repository's mountpoint where one has to be mounted."""

import errno
import os
from pathlib import Path

import pytest

from ducc.image.digest import Digest
from ducc.rootfs.locate import LayerAbsent, MountedRepository, RepositoryUnavailable
from ducc.rootfs.mounts import open_directory_beneath

LAYER = Digest("1a" * 32)


def test_a_layer_is_the_directory_below_its_digest(tmp_path: Path) -> None:
    place = tmp_path / ".layers" / "1a" / LAYER.hex / "layerfs"
    place.mkdir(parents=True)
    assert MountedRepository("images.test", tmp_path).layer(LAYER) == place


def test_what_a_mounted_repository_does_not_have_is_absent() -> None:
    with pytest.raises(LayerAbsent, match="does not have layer sha256:1a"):
        MountedRepository("images.test", Path("/")).layer(LAYER)


def test_where_nothing_is_mounted_nothing_is_known_to_be_absent(tmp_path: Path) -> None:
    for mountpoint in (tmp_path, tmp_path / "none"):
        with pytest.raises(RepositoryUnavailable, match="is not mounted at"):
            MountedRepository("images.test", mountpoint).layer(LAYER)


def test_a_mount_that_answers_with_an_error_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    (tmp_path / ".layers" / "1a" / LAYER.hex / "layerfs").mkdir(parents=True)
    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(RepositoryUnavailable, match="not connected"):
        MountedRepository("images.test", tmp_path).layer(LAYER)


@pytest.mark.parametrize("way", ["link/inner", "inner/../..", "/etc", "..", "proc-link"])
def test_no_way_leads_out_of_a_directory(way: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to(".")
    (tmp_path / "proc-link").symlink_to("/proc/self/root")
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError):  # the kernel has several words for it
            open_directory_beneath(top, os.fsencode(way))
        os.close(open_directory_beneath(top, b"inner"))
    finally:
        os.close(top)
