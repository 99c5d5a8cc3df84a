"""What the mirror says of published images: the registry's own bytes, by every name they have, and nothing else."""

import json
import os
from pathlib import Path

import pytest

from ducc.mirror.answer import Answer, Answers
from ducc.mirror.images import PublishedImages
from ducc.mirror.question import read_question
from ducc.mirror.refusal import Refusal
from tests import builders
from tests.builders import sha256
from tests.unit.mirror.published import HUB, NAME, image, put, write


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    (tmp_path / "mount").mkdir()
    return tmp_path / "mount"


def ask(path: str, *mounts: Path, **headers: str) -> Answer:
    path, _, query = path.partition("?")
    asked = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answers([PublishedImages(mount) for mount in mounts]).to(read_question(path.encode(), query.encode()), asked)


def refusal(path: str, *mounts: Path, **headers: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        ask(path, *mounts, **headers)
    return caught.value


# --- documents -------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["oci", "docker"])
def test_a_tag_a_digest_and_a_config_give_the_registrys_own_bytes(mount: Path, flavour: str) -> None:
    published = image(flavour=flavour)
    put(mount, f"{NAME}:1", published)
    for locator in ("1", sha256(published.manifest)):
        answer = ask(f"/v2/{NAME}/manifests/{locator}", mount)
        assert (answer.status, answer.body) == (200, published.manifest)
        assert answer.headers["content-type"] == published.media_type
        assert answer.headers["docker-content-digest"] == sha256(published.manifest)
        assert answer.headers["etag"] == f'"{sha256(published.manifest)}"'
    answer = ask(f"/v2/{NAME}/blobs/{sha256(published.config)}", mount)
    assert (answer.status, answer.body) == (200, published.config)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["docker-content-digest"] == sha256(published.config)


def test_an_image_for_several_platforms_is_its_index_and_the_builds_that_are_published(mount: Path) -> None:
    arm = builders.Image(image("arm").layers, {}, {"os": "linux", "architecture": "arm64"})
    intel, unpublished = image("intel"), image("unpublished")
    index = builders.Index([intel, arm, unpublished])
    put(mount, f"{NAME}:1", intel, index, build="amd64")
    put(mount, f"{NAME}:1", arm, build="arm64")
    answer = ask(f"/v2/{NAME}/manifests/1", mount)
    assert (answer.headers["content-type"], answer.body) == (index.media_type, index.manifest)
    for known in (index, intel, arm):
        assert ask(f"/v2/{NAME}/manifests/{sha256(known.manifest)}", mount).body == known.manifest
    assert ask(f"/v2/{NAME}/blobs/{sha256(arm.config)}", mount).body == arm.config
    assert refusal(f"/v2/{NAME}/manifests/{sha256(unpublished.manifest)}", mount).code == "MANIFEST_UNKNOWN"


def test_an_image_that_was_published_by_digest_is_found_by_it_and_has_no_tag(mount: Path) -> None:
    published = image()
    put(mount, f"{NAME}@{sha256(published.manifest)}", published)
    assert ask(f"/v2/{NAME}/manifests/{sha256(published.manifest)}", mount).body == published.manifest
    assert refusal(f"/v2/{NAME}/tags/list", mount).code == "NAME_UNKNOWN"


def test_docker_hub_is_known_by_all_its_names_and_by_none(mount: Path) -> None:
    put(mount, f"{HUB}:3", image())
    for path in ("library/python/manifests/3?ns=docker.io", "library/python/manifests/3", "python/manifests/3"):
        assert ask(f"/v2/{path}", mount).body == image().manifest
    assert refusal("/v2/library/python/manifests/3?ns=registry.example.org", mount).status == 404


def test_digests_belong_to_the_names_under_which_they_are_published(mount: Path) -> None:
    put(mount, f"{NAME}:1", image("one"))
    put(mount, f"{NAME}-too:1", image("other"))
    put(mount, f"{NAME}/below:1", image("below"))
    for other in ("other", "below"):
        assert refusal(f"/v2/{NAME}/manifests/{sha256(image(other).manifest)}", mount).code == "MANIFEST_UNKNOWN"
        assert refusal(f"/v2/{NAME}/blobs/{sha256(image(other).config)}", mount).code == "BLOB_UNKNOWN"


def test_a_layer_is_refused_with_what_to_do_instead(mount: Path) -> None:
    put(mount, f"{NAME}:1", image())
    refused = refusal(f"/v2/{NAME}/blobs/{sha256(image().layers[0].blob)}", mount)
    assert (refused.status, refused.code) == (404, "BLOB_UNKNOWN")
    assert "ducc-snapshotter" in str(refused)
    unknown = refusal(f"/v2/{NAME}/blobs/{sha256(b'unknown')}", mount)
    assert (unknown.status, unknown.code) == (404, "BLOB_UNKNOWN")
    assert "no published image" in str(unknown)


def test_errors_have_the_specifications_form(mount: Path) -> None:
    put(mount, f"{NAME}:1", image())
    refused = refusal(f"/v2/{NAME}/manifests/2", mount)
    errors = json.loads(refused.body)["errors"]
    assert errors == [{"code": "MANIFEST_UNKNOWN", "message": f"{NAME}:2 is not published"}]


def test_the_base_and_referrers_are_answered(mount: Path) -> None:
    assert ask("/v2/", mount).headers["docker-distribution-api-version"] == "registry/2.0"
    answer = ask(f"/v2/{NAME}/referrers/{sha256(b'')}", mount)
    assert answer.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
    assert json.loads(answer.body)["manifests"] == []


# --- tags ------------------------------------------------------------------------------------


def test_tags_are_listed_in_order_and_by_pages(mount: Path) -> None:
    for tag in ("3", "1", "2"):
        put(mount, f"{NAME}:{tag}", image(tag))
    put(mount, f"{NAME}:2", image("2"), build="arm64")
    assert json.loads(ask(f"/v2/{NAME}/tags/list", mount).body) == {"name": NAME, "tags": ["1", "2", "3"]}
    first = ask("/v2/physics/analysis/tags/list?ns=registry.example.org&n=2", mount)
    assert json.loads(first.body)["tags"] == ["1", "2"]
    link = first.headers["link"]
    assert link == '</v2/physics/analysis/tags/list?n=2&last=2&ns=registry.example.org>; rel="next"'
    second = ask(link[1 : link.index(">")], mount)
    assert json.loads(second.body)["tags"] == ["3"]
    assert "link" not in second.headers


# --- ranges and conditions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=5-", 5, None), ("bytes=-7", -7, None), ("bytes=3-9999999", 3, None)],
)
def test_a_range_is_that_part(mount: Path, asked: str, start: int, end: int | None) -> None:
    put(mount, f"{NAME}:1", image())
    config = image().config
    answer = ask(f"/v2/{NAME}/blobs/{sha256(config)}", mount, range=asked)
    assert (answer.status, answer.body) == (206, config[start:end])
    first = start % len(config)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(config)}"


@pytest.mark.parametrize("asked", ["bytes=99999-", "bytes=-0", "bytes=9-3", "bytes=99999-99999999999999999"])
def test_a_range_without_a_byte_is_refused_with_the_size(mount: Path, asked: str) -> None:
    put(mount, f"{NAME}:1", image())
    refused = refusal(f"/v2/{NAME}/blobs/{sha256(image().config)}", mount, range=asked)
    assert (refused.status, refused.headers["content-range"]) == (416, f"bytes */{len(image().config)}")


@pytest.mark.parametrize(
    "asked", ["bytes=", "bytes=-", "lines=0-1", "bytes=0-1,3-4", "bytes=a-b", "bytes=0-" + "9" * 30]
)
def test_what_is_no_single_range_gets_the_whole(mount: Path, asked: str) -> None:
    put(mount, f"{NAME}:1", image())
    answer = ask(f"/v2/{NAME}/blobs/{sha256(image().config)}", mount, range=asked)
    assert (answer.status, answer.body) == (200, image().config)


def test_conditions_are_kept(mount: Path) -> None:
    put(mount, f"{NAME}:1", image())
    path, etag = f"/v2/{NAME}/manifests/1", f'"{sha256(image().manifest)}"'
    assert ask(path, mount, if_none_match=etag)[::2] == (304, b"")
    assert ask(path, mount, if_none_match='"sha256:other"').status == 200
    assert ask(path, mount, range="bytes=0-1", if_range=etag).status == 206
    assert ask(path, mount, range="bytes=0-1", if_range='"other"').status == 200


# --- what is wrong with a repository -----------------------------------------------------------


def test_what_is_not_what_its_name_says_is_not_handed_out(mount: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(mount, f"{NAME}:1", image())
    write(mount, f"/.metadata/{NAME}:1/config.json".encode(), b"{}")
    assert refusal(f"/v2/{NAME}/blobs/{sha256(image().config)}", mount).status == 404
    write(mount, f"/.metadata/{NAME}:2/manifest.json".encode(), b"<html>")
    assert refusal(f"/v2/{NAME}/manifests/2", mount).status == 404
    assert ask(f"/v2/{NAME}/manifests/{sha256(image().manifest)}", mount).status == 200
    assert "not handed out" in caplog.text


def test_links_and_what_is_no_file_are_not_there(mount: Path, tmp_path: Path) -> None:
    put(mount, f"{NAME}:1", image())
    (tmp_path / "secret").write_bytes(image("secret").manifest)
    image_directory = mount / ".metadata" / f"{NAME}:2"
    image_directory.mkdir()
    (image_directory / "manifest.json").symlink_to(tmp_path / "secret")
    (mount / ".metadata" / f"{NAME}:3").symlink_to(mount / ".metadata" / f"{NAME}:1")
    (mount / ".metadata" / f"{NAME}:4" / "manifest.json").mkdir(parents=True)
    (mount / ".metadata" / f"{NAME}:5").mkdir()
    os.mkfifo(mount / ".metadata" / f"{NAME}:5" / "manifest.json")
    (mount / ".metadata" / f"{NAME}:6").mkdir()
    with (mount / ".metadata" / f"{NAME}:6" / "manifest.json").open("wb") as file:
        file.truncate(1 << 30)
    for tag in "23456":
        assert refusal(f"/v2/{NAME}/manifests/{tag}", mount).code == "MANIFEST_UNKNOWN"


def test_the_first_repository_that_has_an_image_answers(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, f"{NAME}:1", image("first"))
    put(second, f"{NAME}:1", image("second"))
    put(second, f"{NAME}:2", image("two"))
    assert ask(f"/v2/{NAME}/manifests/1", first, second).body == image("first").manifest
    assert ask(f"/v2/{NAME}/manifests/2", first, second).body == image("two").manifest


def test_nothing_is_denied_on_account_of_a_repository_that_is_not_there(tmp_path: Path) -> None:
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    put(other, f"{NAME}:1", image())
    assert ask(f"/v2/{NAME}/manifests/1", empty, other).status == 200
    for path in (f"/v2/{NAME}/manifests/{sha256(b'')}", f"/v2/{NAME}/blobs/{sha256(b'')}", f"/v2/{NAME}/manifests/2"):
        refused = refusal(path, empty, other)
        assert (refused.status, refused.code) == (503, "UNAVAILABLE"), path
        assert str(empty) in str(refused)


def test_a_new_revision_is_seen_at_once(mount: Path) -> None:
    put(mount, f"{NAME}:1", image("old"))
    os.setxattr(mount, "user.revision", b"1")  # as a mount answers
    answers = Answers([PublishedImages(mount)])

    def status(digest: str) -> int:
        try:
            return answers.to(read_question(f"/v2/{NAME}/manifests/{digest}".encode(), b""), {}).status
        except Refusal as refused:
            return refused.status

    old, new = sha256(image("old").manifest), sha256(image("new").manifest)
    assert (status(old), status(new)) == (200, 404)
    put(mount, f"{NAME}:1", image("new"))
    os.setxattr(mount, "user.revision", b"2")
    assert (status(old), status(new)) == (404, 200)


def test_documents_are_read_once_a_revision(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tag in range(20):
        put(mount, f"{NAME}:{tag}", image(str(tag)))
    os.setxattr(mount, "user.revision", b"1")
    images = PublishedImages(mount)
    answers, digest = Answers([images]), sha256(image("7").manifest)
    reads: list[bytes] = []
    read = images._files.read
    monkeypatch.setattr(images._files, "read", lambda path: (reads.append(path), read(path))[1])
    question = read_question(f"/v2/{NAME}/manifests/{digest}".encode(), b"")
    answers.to(question, {})
    reads.clear()
    answers.to(question, {})
    assert len(reads) == 1
