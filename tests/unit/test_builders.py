"""The images that tests make by hand are what they say: checked by Python's tar reader and the registry."""

import io
import json
import tarfile

import pytest

from tests.builders import (
    LONG_AGO,
    Attestation,
    Image,
    Index,
    Layer,
    character_device,
    directory,
    file,
    hard_link,
    opaque,
    sha256,
    symlink,
    tar,
    whiteout,
    write_layout,
)


def read(*entries):
    with tarfile.open(fileobj=io.BytesIO(tar(entries)), encoding="utf-8", errors="surrogateescape") as archive:
        return archive.getmembers()


def test_entries_are_read_back_with_type_mode_owner_and_target():
    found = read(
        directory("d", mode=0o1777),
        file("d/f", b"data", mode=0o4755, uid=1, gid=2),
        symlink("s", "d/f"),
        hard_link("h", "d/f"),
        character_device("null", 1, 3),
    )
    assert [member.name for member in found] == ["d", "d/f", "s", "h", "null"]
    assert [member.type for member in found] == [b"5", b"0", b"2", b"1", b"3"]
    assert (found[1].mode, found[1].uid, found[1].gid, found[1].size) == (0o4755, 1, 2, 4)
    assert (found[2].linkname, found[3].linkname) == ("d/f", "d/f")
    assert (found[4].devmajor, found[4].devminor) == (1, 3)


@pytest.mark.parametrize("length", [99, 100, 101, 255, 4000])
def test_names_and_targets_of_any_length_survive(length):
    (member,) = read(symlink("n" * length, "t" * length))
    assert (member.name, member.linkname) == ("n" * length, "t" * length)


@pytest.mark.parametrize("mtime_ns", [0, LONG_AGO + 123456789, -1_500_000_000, 2**40 * 10**9])
def test_times_survive_before_the_epoch_and_with_fractions(mtime_ns):
    (member,) = read(file("f", mtime_ns=mtime_ns))
    assert member.mtime == pytest.approx(mtime_ns / 10**9, abs=1e-3)


def test_ids_beyond_octal_go_into_pax_records():
    (member,) = read(file("f", uid=2**31 + 5, gid=2**32 - 7))
    assert (member.uid, member.gid) == (2**31 + 5, 2**32 - 7)


def test_attributes_stand_in_the_archive_as_raw_bytes():
    assert b"SCHILY.xattr.user.x=\x00\xff\n" in tar([file("f", xattrs={"user.x": b"\x00\xff"})])


def test_names_that_are_no_utf8_are_kept():
    (member,) = read(file(b"caf\xe9"))
    assert member.name.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_whiteouts_are_named_after_what_they_hide():
    assert [member.name for member in read(whiteout("a/b"), opaque("c"))] == ["a/.wh.b", "c/.wh..wh..opq"]


def test_an_image_names_its_blobs_by_digest_and_its_layers_by_diff_id():
    layer = Layer.of(file("f"), compression="zstd")
    image = Image([layer])
    manifest, config = json.loads(image.manifest), json.loads(image.config)
    assert manifest["config"]["digest"] == sha256(image.config)
    assert manifest["layers"][0]["digest"] == sha256(layer.blob)
    assert manifest["layers"][0]["mediaType"].endswith("tar+zstd")
    assert config["rootfs"]["diff_ids"] == [sha256(layer.tar)]


def test_a_layer_may_lie_about_its_diff_id_and_its_bytes():
    layer = Layer(tar([file("f")]), diff_id="sha256:" + 64 * "0", blob=b"damaged")
    assert json.loads(Image([layer]).config)["rootfs"]["diff_ids"] == ["sha256:" + 64 * "0"]
    assert Image([layer]).blobs[1] == b"damaged"


def test_an_index_lists_platforms_and_marks_attestations():
    image = Image([Layer.of(file("f"))])
    first, second = json.loads(Index([image, Attestation(image)]).manifest)["manifests"]
    assert first["platform"] == {"os": "linux", "architecture": "amd64"}
    assert second["platform"] == {"os": "unknown", "architecture": "unknown"}
    assert second["annotations"]["vnd.docker.reference.digest"] == first["digest"]


def test_a_layout_holds_every_blob_under_its_own_digest(tmp_path):
    image = Image([Layer.of(file("f"))])
    write_layout(tmp_path, {"latest": Index([image, Attestation(image)])})
    blobs = list((tmp_path / "blobs" / "sha256").iterdir())
    assert len(blobs) == 7  # two configs, two layers, two manifests and the index
    assert all(sha256(blob.read_bytes()) == f"sha256:{blob.name}" for blob in blobs)
