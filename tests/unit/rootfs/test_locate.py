"""Where a layer is, or why it can't be had. `/` stands for a repository's mountpoint where one has to be mounted."""

import errno
import os
from pathlib import Path

import pytest

from ducc.image.chain import chain_id
from ducc.image.digest import Digest
from ducc.rootfs.locate import LayerAbsent, MountedRepository, RepositoryUnavailable, StackedLayer, stacked
from ducc.rootfs.mounts import open_directory_beneath

DIGEST, DIFF_ID, BELOW = Digest("1a" * 32), Digest("2b" * 32), Digest("3c" * 32)
LOWEST = StackedLayer(DIGEST, None, DIFF_ID)
UPPER = StackedLayer(DIGEST, BELOW, chain_id(BELOW, DIFF_ID))
HOME = Path(".layers", "1a", DIGEST.hex)


@pytest.fixture
def mountpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that passes for a mountpoint."""
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    (tmp_path / HOME / "layerfs").mkdir(parents=True)
    return tmp_path


def found(mountpoint: Path, wanted: StackedLayer) -> Path:
    return MountedRepository("images.test", mountpoint).layer(wanted).relative_to(mountpoint / HOME)


def fits_anywhere(mountpoint: Path, text: str = f"{DIFF_ID}\n") -> None:
    (mountpoint / HOME / ".metadata").mkdir()
    (mountpoint / HOME / ".metadata" / "anywhere").write_text(text)


def completed(mountpoint: Path, *layers: StackedLayer) -> None:
    for layer in layers:
        (mountpoint / HOME / "stacks" / layer.stack.hex).mkdir(parents=True)


def test_a_layer_that_fits_anywhere_is_its_own_directory_in_every_stack(mountpoint: Path) -> None:
    fits_anywhere(mountpoint)
    assert {found(mountpoint, wanted) for wanted in (LOWEST, UPPER)} == {Path("layerfs")}


def test_a_layer_that_was_completed_for_a_stack_is_used_so_there(mountpoint: Path) -> None:
    fits_anywhere(mountpoint)
    completed(mountpoint, UPPER)
    assert found(mountpoint, UPPER) == Path("stacks", UPPER.stack.hex)
    assert found(mountpoint, LOWEST) == Path("layerfs")


def test_a_layer_that_was_found_is_only_asked_for_the_next_time(mountpoint: Path) -> None:
    fits_anywhere(mountpoint)
    repository = MountedRepository("images.test", mountpoint)
    assert repository.layer(LOWEST) == mountpoint / HOME / "layerfs"
    (mountpoint / HOME / ".metadata" / "anywhere").unlink()
    assert repository.layer(LOWEST) == mountpoint / HOME / "layerfs"
    (mountpoint / HOME / "layerfs").rmdir()
    for _ in range(2):
        with pytest.raises(LayerAbsent):
            repository.layer(LOWEST)
    completed(mountpoint, LOWEST)
    assert repository.layer(LOWEST) == mountpoint / HOME / "stacks" / LOWEST.stack.hex


def test_a_layer_that_was_found_is_unavailable_when_nobody_answers_for_it_any_more(
    mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits_anywhere(mountpoint)
    repository = MountedRepository("images.test", mountpoint)
    repository.layer(LOWEST)

    def nobody(descriptor: int) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(os, "fstatvfs", nobody)  # names and attributes are in the kernel's memory even then
    with pytest.raises(RepositoryUnavailable, match="not connected"):
        repository.layer(LOWEST)


def test_a_layer_that_was_completed_for_other_stacks_is_absent(mountpoint: Path) -> None:
    completed(mountpoint, UPPER)
    assert found(mountpoint, UPPER) == Path("stacks", UPPER.stack.hex)
    with pytest.raises(LayerAbsent, match="fits on what is below"):
        found(mountpoint, LOWEST)


def test_a_layer_of_a_publisher_that_did_not_say_where_it_fits_is_absent(mountpoint: Path) -> None:
    with pytest.raises(LayerAbsent, match="fits on what is below"):
        found(mountpoint, LOWEST)


@pytest.mark.parametrize(
    "wanted",
    [
        StackedLayer(DIGEST, None, BELOW),
        StackedLayer(DIGEST, None, UPPER.stack),
        StackedLayer(DIGEST, BELOW, DIFF_ID),
        StackedLayer(DIGEST, DIFF_ID, UPPER.stack),
    ],
)
def test_no_layer_is_given_for_the_chain_id_of_another(mountpoint: Path, wanted: StackedLayer) -> None:
    """Else an image whose config lies could put its files in the place of another image's."""
    fits_anywhere(mountpoint)
    with pytest.raises(LayerAbsent, match="does not make"):
        found(mountpoint, wanted)


@pytest.mark.parametrize("text", ["", "sha256:1", "x" * 1000, "\0"])
def test_a_diff_id_that_is_none_fits_nowhere(mountpoint: Path, text: str) -> None:
    fits_anywhere(mountpoint, text)
    with pytest.raises(LayerAbsent):
        found(mountpoint, LOWEST)


def test_a_stack_is_whole_where_it_is_published_whole(mountpoint: Path) -> None:
    repository = MountedRepository("images.test", mountpoint)
    with pytest.raises(LayerAbsent, match="in one directory"):
        repository.whole([UPPER])
    place = mountpoint / HOME / "whole" / UPPER.stack.hex
    place.mkdir(parents=True)
    assert repository.whole([UPPER]) == (0, place)
    assert repository.whole([LOWEST, UPPER]) == (1, place)
    with pytest.raises(LayerAbsent):
        repository.whole([LOWEST])


def test_an_image_is_stacked_by_its_diff_ids() -> None:
    assert stacked([DIGEST], [DIFF_ID]) == [LOWEST]
    lower, upper = stacked([BELOW, DIGEST], [BELOW, DIFF_ID])
    assert (lower, upper) == (StackedLayer(BELOW, None, BELOW), UPPER)
    with pytest.raises(ValueError, match="argument"):
        stacked([DIGEST], [])


def test_what_a_mounted_repository_does_not_have_is_absent() -> None:
    with pytest.raises(LayerAbsent, match="has no layer sha256:1a"):
        MountedRepository("images.test", Path("/")).layer(LOWEST)


def test_where_nothing_is_mounted_nothing_is_known_to_be_absent(tmp_path: Path) -> None:
    for mountpoint in (tmp_path, tmp_path / "none"):
        with pytest.raises(RepositoryUnavailable, match="is not mounted at"):
            MountedRepository("images.test", mountpoint).layer(LOWEST)


def test_a_mount_that_answers_with_an_error_is_unavailable(mountpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    fits_anywhere(mountpoint)
    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(RepositoryUnavailable, match="not connected"):
        found(mountpoint, LOWEST)


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
