"""What a registry may say that is not so, and what comes of it: one row at least for each of B52 to B75.

| row | here | and in depth |
|---|---|---|
| B52 two kinds at once, another type | LIES | unit/image/test_manifest.py |
| B53, B54 forms of digests | LIES | unit/image/test_digest.py |
| B55 sizes | LIES | test_client.py (lengths of blobs) |
| B56 JSON | LIES | unit/image/test_strictjson.py |
| B57 schema 1, artifacts | LIES | unit/image/test_manifest.py |
| B58 numbers of layers | LIES, HARMLESS | |
| B59 diff ids and history | LIES, HARMLESS | unit/image/test_config.py |
| B60 wrong diff id | | end_to_end/test_hostile_images.py, unit/layer/test_compression.py |
| B61 platforms | LIES | test_builds.py, unit/image/test_platform.py |
| B62 nesting | | test_client.py, test_builds.py |
| B63 foreign layers | LIES | test_builds.py |
| B64 config of another platform | HARMLESS | test_client.py |
| B65, B66 strings of the config | HARMLESS | unit/image/test_config.py |
| B67 annotations with paths | HARMLESS | |
| B68, B69 challenges | CHALLENGES | test_auth.py |
| B70 redirects | REDIRECTS | unit/test_transport.py |
| B71 tokens | TOKENS | test_auth.py |
| B72 web pages | LIES | test_client.py |
| B73 lengths, codings, headers | LIES | test_client.py, unit/test_transport.py |
| B74 tag lists | TAG_LISTS | test_client.py |
| B75 TLS | | test_routes.py, unit/test_transport.py |
"""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from ducc.errors import DuccError
from ducc.image.config import MalformedConfig
from ducc.image.digest import DigestMismatch
from ducc.image.manifest import (
    MAX_LAYERS,
    EncryptedLayer,
    ForeignLayer,
    MalformedManifest,
    NotAnImage,
    SchemaOneImage,
    UnsupportedImage,
)
from ducc.image.platform import NoSuchPlatform
from ducc.image.reference import Reference
from ducc.image.strictjson import MAX_BYTES, MalformedDocument
from ducc.registry.auth import RefusedRealm
from ducc.registry.blob import WrongLength
from ducc.registry.client import MAX_TAGS, CaptiveAnswer, Registry, UnusableTagList
from ducc.registry.credentials import AccessDenied, Credential, Credentials
from ducc.transport import RefusedAnswer, Transport, Unreachable
from tests import builders
from tests.builders import Image, Index, Layer, file
from tests.fakes.registry import Answer, FakeRegistry, fake_registry

CANARY = "c4nary-s3cret"
IMAGE = Image([Layer.of(file("a", b"x" * 300))])
MANIFEST, TAGS = "/v2/some/image/manifests/tag", "/v2/some/image/tags/list"
Lie = Callable[[FakeRegistry], None]


@pytest.fixture
def server():
    with fake_registry() as registry:
        registry.hold_image(IMAGE)
        yield registry


@pytest.fixture
def client(server):
    transport = Transport(sleep=lambda _: None, attempts=2)
    return Registry(transport, Credentials([Credential(server.host, "me", CANARY)]))


def reference(server) -> Reference:
    return Reference.parse(server.reference())


def says(body: bytes, content_type: str = IMAGE.media_type, **headers: str) -> Lie:
    """The tag names *body*."""
    return lambda server: server.hold(MANIFEST, body, content_type=content_type, **headers)


def manifest(**changes: object) -> Lie:
    """The tag names the image's manifest with other members; None removes one."""
    values = {**json.loads(IMAGE.manifest), **changes}
    return says(json.dumps({name: value for name, value in values.items() if value is not None}).encode())


def layer(**changes: object) -> Lie:
    return manifest(layers=[{**json.loads(IMAGE.manifest)["layers"][0], **changes}])


def config(raw: bytes) -> Lie:
    """The image has another config, well named."""

    def arrange(server: FakeRegistry) -> None:
        server.hold_blob(raw)
        manifest(config=builders.descriptor(builders.CONFIG_TYPES["oci"], raw))(server)

    return arrange


def config_with(**changes: object) -> Lie:
    return config(json.dumps({**json.loads(IMAGE.config), **changes}).encode())


def blob(answer: Answer) -> Lie:
    """The config's blob is answered so, always."""
    path = f"/v2/some/image/blobs/{builders.sha256(IMAGE.config)}"
    return lambda server: server.say_always(path, answer)


def index(*platforms: dict[str, str]) -> Lie:
    return lambda server: server.hold_image(Index([Image([], platform=each) for each in platforms])) and None


def answers(answer: Answer) -> Lie:
    return lambda server: server.say_always(MANIFEST, answer)


EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": builders.sha256(b"{}"), "size": 2}
HTML = {"Content-Type": "text/html"}
DEEP = b"[" * 100_000 + b"]" * 100_000
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
SHA256 = builders.sha256(b"")

LIES: list[tuple[str, Lie, type[DuccError]]] = [
    ("B52 both kinds", manifest(manifests=[]), MalformedManifest),
    ("B52 neither kind", manifest(layers=None), MalformedManifest),
    ("B52 another type in the header", says(IMAGE.manifest, builders.INDEX_TYPES["oci"]), MalformedManifest),
    ("B52 another type inside", manifest(mediaType=builders.INDEX_TYPES["oci"]), MalformedManifest),
    ("B53 path", layer(digest="sha256:../../x"), MalformedManifest),
    ("B53 capitals", layer(digest=SHA256.upper()), MalformedManifest),
    ("B53 63 digits", layer(digest=SHA256[:-1]), MalformedManifest),
    ("B53 65 digits", layer(digest=SHA256 + "0"), MalformedManifest),
    ("B53 white space", layer(digest=SHA256 + "\n"), MalformedManifest),
    ("B53 no colon", layer(digest=SHA256.replace(":", "")), MalformedManifest),
    ("B53 no algorithm", layer(digest=SHA256.replace("sha256", "")), MalformedManifest),
    ("B53 unknown algorithm", layer(digest="blake3:" + "0" * 64), MalformedManifest),
    ("B53 md5", layer(digest="md5:" + "0" * 32), MalformedManifest),
    ("B53 in the header", says(IMAGE.manifest, docker_content_digest="sha256:x"), DuccError),
    ("B54 sha512", layer(digest="sha512:" + "0" * 128), MalformedManifest),
    *((f"B55 {size}", layer(size=size), MalformedManifest) for size in (-1, 0, 2**63, 1.0, "1", True, None)),
    ("B55 config smaller", manifest(config={**json.loads(IMAGE.manifest)["config"], "size": 5}), WrongLength),
    ("B55 config larger", manifest(config={**json.loads(IMAGE.manifest)["config"], "size": 5000}), WrongLength),
    ("B55 one byte more", blob(Answer(200, IMAGE.config + b"x", chunked=True)), WrongLength),
    ("B56 depth", says(DEEP), MalformedDocument),
    ("B56 depth of an object", says(b'{"a":' + DEEP + b"}"), MalformedDocument),
    ("B56 equal keys", says(IMAGE.manifest[:-1] + b',"layers":[]}'), MalformedDocument),
    ("B56 NaN", says(IMAGE.manifest[:-1] + b',"a":NaN}'), MalformedDocument),
    ("B56 5000 digits", says(IMAGE.manifest[:-1] + b',"a":' + b"9" * 5000 + b"}"), MalformedDocument),
    ("B56 byte order mark", says(b"\xef\xbb\xbf" + IMAGE.manifest), MalformedDocument),
    ("B56 lone surrogate", says(IMAGE.manifest[:-1] + rb',"a":"\ud800"}'), MalformedDocument),
    ("B56 trailing bytes", says(IMAGE.manifest + b"{}"), MalformedDocument),
    ("B56 4 MiB + 1", says(IMAGE.manifest + b" " * (MAX_BYTES + 1 - len(IMAGE.manifest))), RefusedAnswer),
    ("B56 config", config(IMAGE.config[:-1] + b',"os":"linux"}'), MalformedConfig),
    ("B57 schema 1", says(b'{"schemaVersion":1,"fsLayers":[]}', "application/json"), SchemaOneImage),
    ("B57 unknown type", manifest(mediaType="application/x-other"), NotAnImage),
    ("B57 artifact", says(b'{"mediaType":"application/vnd.oci.artifact.manifest.v1+json"}'), NotAnImage),
    ("B57 empty config", manifest(config=EMPTY), NotAnImage),
    ("B57 encrypted", layer(mediaType="application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), EncryptedLayer),
    (
        "B58 too many layers",
        manifest(layers=json.loads(IMAGE.manifest)["layers"] * (MAX_LAYERS + 1)),
        UnsupportedImage,
    ),
    ("B59 more diff ids", config_with(rootfs={"type": "layers", "diff_ids": [SHA256] * 2}), MalformedConfig),
    ("B59 no diff ids", config_with(rootfs={"type": "layers", "diff_ids": []}), MalformedConfig),
    ("B59 malformed diff id", config_with(rootfs={"type": "layers", "diff_ids": ["x"]}), DuccError),
    ("B61 no match", index({"os": "linux", "architecture": "s390x"}), NoSuchPlatform),
    ("B61 another system", index({"os": "windows", "architecture": "amd64"}), NoSuchPlatform),
    ("B61 attestations only", index({"os": "unknown", "architecture": "unknown"}), NoSuchPlatform),
    ("B61 nothing", index(), NoSuchPlatform),
    ("B63 foreign", layer(mediaType=FOREIGN, urls=["http://169.254.169.254/"]), ForeignLayer),
    ("B72 manifest", answers(Answer(200, b"<html>", HTML)), CaptiveAnswer),
    ("B72 blob", blob(Answer(200, b"<html>", HTML)), CaptiveAnswer),
    ("B72 called JSON", says(b"<html>", "application/json"), MalformedDocument),
    ("B73 short", answers(Answer(200, IMAGE.manifest[:50], length=len(IMAGE.manifest))), Unreachable),
    ("B73 long", blob(Answer(200, IMAGE.config, length=len(IMAGE.config) + 9)), WrongLength),
    ("B73 chunk cut", answers(Answer(200, IMAGE.manifest, chunked=True, cut_after=50)), Unreachable),
    ("B73 gzip", blob(Answer(200, IMAGE.config, {"Content-Encoding": "gzip"})), RefusedAnswer),
    ("B73 digest header", says(IMAGE.manifest, docker_content_digest=SHA256), DigestMismatch),
    ("B73 other bytes", blob(Answer(200, b" " * len(IMAGE.config))), DigestMismatch),
]


@pytest.mark.parametrize(("lie", "error"), [pytest.param(*row[1:], id=row[0]) for row in LIES])
def test_a_lie_is_refused_by_its_name_in_one_line(client, server, lie, error):
    lie(server)
    with pytest.raises(error) as caught:
        client.resolve(reference(server))
    assert "some/image" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert all("169.254" not in seen.target for seen in server.seen)


def with_layers(count: int) -> Lie:
    return lambda server: server.hold_image(replace(IMAGE, layers=IMAGE.layers * count)) and None


STRANGE = "<script>\x1b[2J\n../../etc/passwd" + "x" * 100_000
HARMLESS: list[tuple[str, Lie, str]] = [
    ("B58 no layers", with_layers(0), ""),
    *((f"B58 {count} layers, all the same", with_layers(count), "") for count in (1, 127, 500, MAX_LAYERS)),
    ("B59 history of another length", config_with(history=[{}, {}, {"empty_layer": True}]), "history tells of 2"),
    ("B64 another processor", config_with(architecture="arm64"), "config says linux/arm64"),
    ("B65 strings", config_with(author=STRANGE, config={"Labels": {"a": STRANGE}, "Env": [f"A={STRANGE}"]}), ""),
    ("B66 paths", config_with(config={"Volumes": {"/../..": {}}, "WorkingDir": "/../..", "User": "../x"}), ""),
    ("B67 annotations", manifest(annotations={"org.opencontainers.image.ref.name": "../../etc"}), ""),
]


@pytest.mark.parametrize(("image", "warning"), [pytest.param(*row[1:], id=row[0]) for row in HARMLESS])
def test_what_is_strange_and_harmless_is_taken_as_data(client, server, image, warning):
    image(server)
    found = client.resolve(reference(server))
    assert found.manifest.raw == server.content[MANIFEST].body
    assert bool(found.warnings) == bool(warning)
    assert all(warning in each and "\n" not in each for each in found.warnings)


CHALLENGES: list[tuple[str, str, type[DuccError]]] = [
    ("B68 http", 'Bearer realm="http://auth.example.org/t"', RefusedRealm),
    ("B68 loopback", 'Bearer realm="https://127.0.0.2/t"', RefusedRealm),
    ("B68 link-local", 'Bearer realm="https://169.254.169.254/t"', RefusedRealm),
    ("B68 private", 'Bearer realm="https://10.0.0.1/t"', RefusedRealm),
    ("B68 user", 'Bearer realm="https://me@auth.example.org/t"', RefusedRealm),
    ("B68 scheme", 'Bearer realm="ftp://auth.example.org/t"', RefusedRealm),
    ("B69 huge", f'Bearer realm="{"x" * 100_000}"', DuccError),
    ("B69 quotes", 'Bearer realm="https://auth.example.org/t', AccessDenied),
    ("B69 50 challenges", ", ".join(['Negotiate realm="x"'] * 50), AccessDenied),
    ("B69 scope", 'Bearer realm="https://auth.example.org/t",scope="repository:other/image:pull"', AccessDenied),
    ("B69 two scopes", 'Bearer realm="https://h.example/t",scope="repository:some/image:pull a:b:c"', AccessDenied),
]


@pytest.mark.parametrize(("challenge", "error"), [pytest.param(*row[1:], id=row[0]) for row in CHALLENGES])
def test_no_credential_follows_a_challenge_that_is_not_right(client, server, challenge, error, monkeypatch):
    asked: list[str] = []
    fetch = Transport.fetch
    monkeypatch.setattr(Transport, "fetch", lambda self, url, **how: asked.append(url) or fetch(self, url, **how))
    answers(Answer(401, headers={"WWW-Authenticate": challenge}))(server)
    with pytest.raises(error) as caught:
        client.resolve(reference(server))
    assert CANARY not in str(caught.value)
    assert all(url.startswith(server.url) for url in asked)
    assert all("Authorization" not in seen.headers for seen in server.seen)


REDIRECTS = [
    ("B70 file", "file:///etc/passwd"),
    ("B70 gopher", "gopher://127.0.0.1/"),
    ("B70 loop", MANIFEST),
    ("B70 user", f"http://me:{CANARY}@127.0.0.1/"),
    ("B70 control characters", "http://127.0.0.1/\x7f"),
]


@pytest.mark.parametrize("location", [pytest.param(row[1], id=row[0]) for row in REDIRECTS])
def test_no_redirect_leads_out_of_http_or_in_circles(client, server, location):
    answers(Answer(302, headers={"Location": location}))(server)
    with pytest.raises(RefusedAnswer) as caught:
        client.resolve(reference(server))
    assert CANARY not in str(caught.value)
    assert len(server.seen) <= 11


TOKENS: list[tuple[str, bytes, type[DuccError] | None]] = [
    ("B71 no lifetime", b'{"token":"t"}', None),
    ("B71 no time", b'{"token":"t","expires_in":0}', None),
    ("B71 negative", b'{"token":"t","expires_in":-1}', None),
    ("B71 for ever", b'{"token":"t","expires_in":1000000000000}', None),
    ("B71 1 MiB + 1", b'{"token":"' + b"t" * (1 << 20) + b'"}', RefusedAnswer),
    ("B71 null", b"null", AccessDenied),
    ("B71 CR LF", rb'{"token":"t\r\nX: y"}', AccessDenied),
]


@pytest.mark.parametrize(("body", "error"), [pytest.param(*row[1:], id=row[0]) for row in TOKENS])
def test_a_token_is_used_if_it_is_one(client, server, body, error):
    server.hold("/token", body)
    server.say(MANIFEST, Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}))
    if error is None:
        assert client.resolve(reference(server)).manifest.raw == IMAGE.manifest
        assert server.seen[2].headers["Authorization"] == "Bearer t"
    else:
        with pytest.raises(error):
            client.resolve(reference(server))


TAG_LISTS: list[tuple[str, bytes, dict[str, str]]] = [
    ("B74 too many", json.dumps({"tags": [f"v{number}" for number in range(MAX_TAGS + 1)]}).encode(), {}),
    ("B74 loop", b'{"tags":["a"]}', {"Link": '<?last=a>; rel="next"'}),
    ("B74 elsewhere", b'{"tags":["a"]}', {"Link": '<http://127.0.0.2/v2/some/image/tags/list>; rel="next"'}),
    ("B74 not a list", b'{"tags":"a"}', {}),
]


@pytest.mark.parametrize(("body", "headers"), [pytest.param(*row[1:], id=row[0]) for row in TAG_LISTS])
def test_a_tag_list_without_end_or_sense_gives_no_tags(client, server, body, headers):
    server.say_always(TAGS, Answer(200, body, headers))
    with pytest.raises(UnusableTagList):
        list(client.tags(reference(server)))


def test_tags_that_are_none_are_left_out_and_counted(client, server, caplog):
    server.hold_tags("good", "a/b", "..", "x" * 129)
    assert list(client.tags(reference(server))) == ["good"]
    assert "count=3" in caplog.text
