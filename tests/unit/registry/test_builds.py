"""From what a reference names to the builds that are wanted."""

import json

import pytest

from ducc.image.manifest import ForeignLayer, Platform, UnsupportedImage
from ducc.image.platform import NoSuchPlatform
from ducc.image.reference import Reference
from ducc.registry.builds import MAX_BUILDS, MAX_INDEX_DEPTH
from ducc.registry.client import NoSuchImage, Registry
from ducc.transport import Transport
from tests import builders
from tests.builders import Attestation, Image, Index, Layer, file
from tests.fakes.registry import Answer, Seen, fake_registry

MANIFEST = "/v2/some/image/manifests/tag"


def build(architecture: str, variant: str = "", os: str = "linux") -> Image:
    platform = {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}
    return Image([Layer.of(file(f"{os}-{architecture}{variant}"))], platform=platform)


AMD64, ARM64, ARM_V7, WINDOWS = build("amd64"), build("arm64", "v8"), build("arm", "v7"), build("amd64", os="windows")
ALL = Index([Attestation(AMD64), AMD64, ARM64, WINDOWS, ARM_V7])


@pytest.fixture
def server():
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def client():
    return Registry(Transport(sleep=lambda _: None, attempts=2))


def found(client, server, platforms: str | None, **options) -> dict[str, bytes]:
    wanted = None if platforms is None else [Platform.parse(text) for text in platforms.split()]
    images = client.resolve_platforms(Reference.parse(server.reference()), wanted, **options)
    return {str(platform): image.manifest.raw for platform, image in images}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("linux/amd64", {"linux/amd64": AMD64}),
        ("linux/arm64 linux/amd64", {"linux/arm64": ARM64, "linux/amd64": AMD64}),
        ("linux/amd64 linux/amd64/v3", {"linux/amd64": AMD64, "linux/amd64/v3": AMD64}),
        ("linux/arm/v8", {"linux/arm/v8": ARM_V7}),
        (None, {"linux/amd64": AMD64, "linux/arm64": ARM64, "linux/arm/v7": ARM_V7}),
    ],
)
def test_the_builds_that_are_wanted_are_found_in_their_order(client, server, wanted, expected):
    server.hold_image(ALL)
    assert list(found(client, server, wanted).items()) == [(name, image.manifest) for name, image in expected.items()]


def test_each_digest_is_fetched_once(client, server):
    server.hold_image(ALL)
    found(client, server, "linux/amd64 linux/amd64/v2 linux/amd64/v3")
    assert len(server.asked()) == len(set(server.asked())) == 3  # the index, one manifest, one config


def test_all_builds_are_of_one_index_though_the_tag_moves_meanwhile(client, server):
    server.hold_image(ALL)
    moved = Index([build("amd64", "v1"), build("arm64")])

    def first(seen: Seen) -> Answer:
        answer = server.content[MANIFEST]
        server.hold_image(moved)
        return answer

    server.say(MANIFEST, first)
    assert found(client, server, "linux/amd64 linux/arm64") == {
        "linux/amd64": AMD64.manifest,
        "linux/arm64": ARM64.manifest,
    }


def test_what_was_planned_is_what_is_fetched_though_the_tag_has_moved(client, server):
    server.hold_image(ALL)
    planned = client.manifest_digest(Reference.parse(server.reference()))
    server.hold_image(Index([build("amd64", "v1")]))
    assert found(client, server, "linux/amd64", digest=planned) == {"linux/amd64": AMD64.manifest}
    assert MANIFEST not in server.asked()


def test_what_was_planned_and_is_gone_is_said_to_be_gone(client, server):
    server.hold_image(ALL)
    planned = client.manifest_digest(Reference.parse(server.reference()))
    server.content.pop(f"/v2/some/image/manifests/{planned}")
    with pytest.raises(NoSuchImage):
        found(client, server, "linux/amd64", digest=planned)


def test_a_platform_without_a_build_is_a_warning_while_there_is_another(client, server):
    server.hold_image(ALL)
    platforms = [Platform("linux", "s390x"), Platform("linux", "amd64")]
    ((platform, image),) = client.resolve_platforms(Reference.parse(server.reference()), platforms)
    assert str(platform) == "linux/amd64"
    assert "no build for linux/s390x" in image.warnings[0]
    with pytest.raises(NoSuchPlatform, match="s390x"):
        client.resolve_platforms(Reference.parse(server.reference()), platforms[:1])


def test_builds_for_other_systems_are_left_out_with_a_warning(client, server):
    server.hold_image(ALL)
    images = client.resolve_platforms(Reference.parse(server.reference()), None)
    assert [warning for _, image in images for warning in image.warnings] == [
        f"{server.reference()}: its build for windows/amd64 is left out"
    ]


@pytest.mark.parametrize("index", [Index([]), Index([WINDOWS]), Index([Attestation(AMD64)])])
def test_an_index_without_a_build_has_no_platform(client, server, index):
    server.hold_image(index)
    with pytest.raises(NoSuchPlatform):
        found(client, server, None)


@pytest.mark.parametrize(
    ("wanted", "platform", "warned"),
    [
        (None, "linux/arm64", False),
        ("linux/arm64", "linux/arm64", False),
        ("linux/amd64 linux/arm64", "linux/arm64", False),
        ("linux/amd64", "linux/amd64", True),
        ("linux/s390x linux/amd64", "linux/s390x", True),
    ],
)
def test_a_build_that_is_named_itself_is_taken_once(client, server, wanted, platform, warned):
    server.hold_image(ARM64)
    platforms = None if wanted is None else [Platform.parse(text) for text in wanted.split()]
    ((given, image),) = client.resolve_platforms(Reference.parse(server.reference()), platforms)
    assert (str(given), bool(image.warnings), image.manifest.raw) == (platform, warned, ARM64.manifest)
    assert len(server.asked()) == 2  # the manifest and its config, each once


def test_two_builds_for_one_platform_are_one_and_the_first(client, server):
    server.hold_image(Index([AMD64, build("x86_64")]))
    assert found(client, server, None) == {"linux/amd64": AMD64.manifest}


def held_index(server, entries: list[dict], tag: str = "tag") -> bytes:
    """Serve an index of *entries*; return its bytes."""
    index = {"schemaVersion": 2, "mediaType": builders.INDEX_TYPES["oci"], "manifests": entries}
    raw = json.dumps(index).encode()
    for key in (tag, builders.sha256(raw)):
        server.hold(f"/v2/some/image/manifests/{key}", raw, content_type=builders.INDEX_TYPES["oci"])
    return raw


def test_every_build_of_indexes_in_indexes_is_found_so_deep_and_no_deeper(client, server):
    server.hold_image(AMD64, tag="inner")
    raw, media_type = AMD64.manifest, AMD64.media_type
    for _ in range(MAX_INDEX_DEPTH):
        raw, media_type = held_index(server, [builders.descriptor(media_type, raw)]), builders.INDEX_TYPES["oci"]
    assert found(client, server, None) == {"linux/amd64": AMD64.manifest}
    held_index(server, [builders.descriptor(media_type, raw)])
    with pytest.raises(UnsupportedImage, match="deep"):
        found(client, server, None)


def test_an_index_that_offers_too_many_builds_is_refused(client, server):
    entry = builders.descriptor(AMD64.media_type, AMD64.manifest)
    server.hold_image(AMD64, tag="inner")
    held_index(server, [{**entry, "digest": builders.sha256(b"%d" % number)} for number in range(MAX_BUILDS + 1)])
    with pytest.raises(UnsupportedImage, match="more than"):
        found(client, server, None)
    held_index(server, [entry] * (MAX_BUILDS + 1))
    assert found(client, server, None) == {"linux/amd64": AMD64.manifest}


def test_a_build_that_can_not_be_published_whole_fails_the_image(client, server):
    manifest = json.loads(ARM64.manifest)
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    raw = json.dumps(manifest).encode()
    server.hold_image(AMD64, tag="inner")
    digest = builders.sha256(raw)
    server.hold(f"/v2/some/image/manifests/{digest}", raw, content_type=ARM64.media_type)
    entries = [
        {**builders.descriptor(AMD64.media_type, AMD64.manifest), "platform": {"os": "linux", "architecture": "amd64"}},
        {**builders.descriptor(ARM64.media_type, raw), "platform": {"os": "linux", "architecture": "arm64"}},
    ]
    held_index(server, entries)
    with pytest.raises(ForeignLayer):
        found(client, server, None)
    assert found(client, server, "linux/amd64") == {"linux/amd64": AMD64.manifest}
