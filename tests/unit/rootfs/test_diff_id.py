"""What a published layer is uncompressed, by its publisher's word; and directories found as a root finds them."""

import os
from pathlib import Path

import pytest

from ducc.image.digest import Digest
from ducc.rootfs.locate import LayerAbsent, MountedRepository, RepositoryUnavailable
from ducc.rootfs.mounts import open_within

DIGEST, DIFF_ID = Digest("1a" * 32), Digest("2b" * 32)
DESCRIPTION = Path(".layers", "1a", DIGEST.hex, ".metadata", "layers.json")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MountedRepository:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    (tmp_path / DESCRIPTION).parent.mkdir(parents=True)
    return MountedRepository("images.test", tmp_path)


def test_the_diff_id_is_what_the_repository_says(repository: MountedRepository) -> None:
    (repository.mountpoint / DESCRIPTION).write_text(f'[{{"id": "x", "diff-digest": "{DIFF_ID}"}}]')
    assert repository.diff_id(DIGEST) == DIFF_ID


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[1]", '[{"diff-digest": "../x"}]', '[{"diff-digest": 1}]', "[" * 70000, "[{}, {}]"]
)
def test_a_description_that_can_not_be_read_makes_the_layer_absent(repository: MountedRepository, text: str) -> None:
    (repository.mountpoint / DESCRIPTION).write_text(text)
    with pytest.raises(LayerAbsent) as caught:
        repository.diff_id(DIGEST)
    assert "\n" not in str(caught.value)


def test_a_layer_without_description_is_absent_and_a_repository_that_is_not_mounted_is_said(
    repository: MountedRepository,
) -> None:
    with pytest.raises(LayerAbsent, match="does not have layer"):
        repository.diff_id(DIGEST)
    with pytest.raises(RepositoryUnavailable, match="is not mounted"):
        MountedRepository("images.test", repository.mountpoint / ".layers").diff_id(DIGEST)


def test_links_lead_to_where_they_would_if_the_directory_were_the_root(tmp_path: Path) -> None:
    (tmp_path / "top" / "etc").mkdir(parents=True)
    (tmp_path / "top" / "absolute").symlink_to("/etc")
    (tmp_path / "top" / "up").symlink_to("../../../etc")
    (tmp_path / "top" / "magic").symlink_to("/proc/self/root/tmp")
    top = os.open(tmp_path / "top", os.O_RDONLY)
    try:
        for name in (b"absolute", b"up", b"etc"):
            opened = open_within(top, name)
            assert os.path.samestat(os.fstat(opened), os.stat(tmp_path / "top" / "etc"))
            os.close(opened)
        with pytest.raises(FileNotFoundError):
            open_within(top, b"magic")
    finally:
        os.close(top)
