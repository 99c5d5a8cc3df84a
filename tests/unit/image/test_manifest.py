import json

import pytest

from ducc.image.digest import Digest
from ducc.image.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
    EncryptedLayer,
    ForeignLayer,
    Index,
    MalformedManifest,
    Manifest,
    NotAnImage,
    SchemaOneImage,
    UnsupportedImage,
    parse_manifest,
)
from ducc.image.strictjson import MalformedDocument

DIGEST = f"sha256:{'a' * 64}"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 10}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 10}


def manifest(**changes: object) -> bytes:
    fields = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER], **changes}
    return json.dumps({key: value for key, value in fields.items() if value != "absent"}).encode()


def index(*entries: object, **changes: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **changes}).encode()


def layer(**changes: object) -> bytes:
    return manifest(layers=[LAYER, {**LAYER, **changes}])


def test_the_bytes_and_their_digest_are_kept():
    raw = manifest() + b"\n"
    read = parse_manifest(raw)
    assert isinstance(read, Manifest)
    assert (read.raw, read.digest) == (raw, Digest.of(raw))
    assert [layer.size for layer in read.layers] == [10]


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_both_kinds_of_manifest_are_read(media_type):
    read = parse_manifest(manifest(mediaType=media_type), f"{media_type}; charset=utf-8")
    assert isinstance(read, Manifest)
    assert read.media_type == media_type


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_both_kinds_of_index_are_read(media_type):
    entry = {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 1, "platform": {"os": "linux", "architecture": "arm"}}
    read = parse_manifest(index(entry, mediaType=media_type), media_type)
    assert isinstance(read, Index)
    assert str(read.manifests[0].platform) == "linux/arm"


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain", OCI_MANIFEST])
def test_oci_manifests_need_not_say_what_they_are(content_type):
    assert parse_manifest(manifest(mediaType="absent"), content_type).media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (manifest(manifests=[]), OCI_MANIFEST),
        (manifest(manifests=[], mediaType="absent"), ""),
        (manifest(layers="absent"), OCI_MANIFEST),
        (manifest(), DOCKER_MANIFEST),
        (manifest(), OCI_INDEX),
        (index(), OCI_MANIFEST),
        (manifest(mediaType=OCI_INDEX), OCI_INDEX),
        (index(mediaType=OCI_MANIFEST), OCI_MANIFEST),
        (manifest(mediaType="absent"), OCI_INDEX),
        (manifest(schemaVersion=3), ""),
        (manifest(schemaVersion="absent"), ""),
        (manifest(schemaVersion="2"), ""),
        (manifest(config="absent"), ""),
        (manifest(config={}), ""),
        (manifest(config=[]), ""),
        (manifest(Layers=[LAYER]), ""),
        (manifest(layers={}), ""),
        (manifest(layers=["x"]), ""),
        (index("x"), ""),
        (index({"mediaType": OCI_MANIFEST, "digest": DIGEST}), ""),
        (index({**LAYER, "platform": "linux/amd64"}), ""),
    ],
)
def test_what_can_be_read_in_two_ways_or_in_none_is_refused(raw, content_type):
    with pytest.raises(MalformedManifest):
        parse_manifest(raw, content_type)


@pytest.mark.parametrize("size", [-1, 0, 2**63, 1.0, "10", None, True])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(MalformedManifest):
        parse_manifest(layer(size=size))


@pytest.mark.parametrize("digest", ["sha256:../../x", "md5:" + "a" * 32, "sha512:" + "a" * 128, "a" * 64, "", 1])
def test_impossible_digests_are_refused(digest):
    with pytest.raises(MalformedManifest):
        parse_manifest(layer(digest=digest))


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b'{"schemaVersion":1,"name":"a","fsLayers":[]}', ""),
        (b'{"schemaVersion":1,"fsLayers":[]}', "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (b'{"schemaVersion":2,"fsLayers":[]}', "application/vnd.docker.distribution.manifest.v1+json"),
    ],
)
def test_schema_1_is_refused_by_name(raw, content_type):
    with pytest.raises(SchemaOneImage, match="schema 1"):
        parse_manifest(raw, content_type)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (manifest(config={**CONFIG, "mediaType": "application/vnd.oci.empty.v1+json"}), "vnd.oci.empty"),
        (manifest(config={**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}), "helm"),
        (
            manifest(artifactType="a/sbom", config={**CONFIG, "mediaType": "application/vnd.oci.empty.v1+json"}),
            "a/sbom",
        ),
        (manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json"), "artifact"),
        (manifest(mediaType="text/plain"), "text/plain"),
        (layer(mediaType="application/vnd.in-toto+json"), "in-toto"),
        (layer(mediaType="application/vnd.docker.plugin.v1+json"), "plugin"),
        (layer(mediaType="\x1b[2Jevil"), r"x1b"),
    ],
)
def test_artifacts_are_refused_and_named(raw, named):
    with pytest.raises(NotAnImage, match=named):
        parse_manifest(raw)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ],
)
def test_an_image_with_a_foreign_layer_is_refused_as_incomplete(media_type):
    with pytest.raises(ForeignLayer, match=r"layers\[1\].*incomplete"):
        parse_manifest(layer(mediaType=media_type, urls=["http://169.254.169.254/layer"]))


def test_encrypted_layers_are_refused_by_name():
    with pytest.raises(EncryptedLayer, match="encrypted"):
        parse_manifest(layer(mediaType="application/vnd.oci.image.layer.v1.tar+gzip+encrypted"))


@pytest.mark.parametrize("count", [0, 1, 127, 500, MAX_LAYERS])
def test_any_number_of_layers_up_to_the_limit_is_read(count):
    assert len(parse_manifest(manifest(layers=[LAYER] * count)).layers) == count


def test_no_layers_may_also_be_written_as_null():
    assert parse_manifest(manifest(layers=None)).layers == ()


def test_more_layers_than_the_limit_are_refused():
    with pytest.raises(UnsupportedImage, match=f"at most {MAX_LAYERS}"):
        parse_manifest(manifest(layers=[LAYER] * (MAX_LAYERS + 1)))


@pytest.mark.parametrize("raw", [b"<html>log in</html>", b"", b"[]", b'{"schemaVersion":2,"schemaVersion":2}'])
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises(MalformedDocument, match=r"^host/a: "):
        parse_manifest(raw, source="host/a")
