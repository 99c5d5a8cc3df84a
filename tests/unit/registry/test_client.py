import json
import threading

import pytest

from ducc.image.config import MalformedConfig
from ducc.image.digest import Digest, DigestMismatch
from ducc.image.manifest import Descriptor, MalformedManifest, Platform, UnsupportedImage
from ducc.image.platform import NoSuchPlatform
from ducc.image.reference import Reference
from ducc.image.strictjson import MAX_BYTES, MalformedDocument
from ducc.registry.auth import RefusedRealm
from ducc.registry.blob import MAX_RESUMES, WrongLength
from ducc.registry.builds import MAX_INDEX_DEPTH
from ducc.registry.client import (
    MAX_TAGS,
    CaptiveAnswer,
    NoSuchImage,
    Registry,
    UnusableTagList,
)
from ducc.registry.credentials import AccessDenied, Credential, Credentials
from ducc.transport import HttpStatus, RefusedAnswer, TemporaryStatus, Transport, Unreachable
from tests import builders
from tests.builders import Attestation, Image, Index, Layer
from tests.fakes.registry import Answer, Seen, fake_registry

ARM = {"os": "linux", "architecture": "arm64", "variant": "v8"}
IMAGE = Image(
    [Layer.of(builders.file("a", b"x" * 5000)), Layer.of(builders.file("b"), compression="zstd")], {"Cmd": ["x"]}
)
ARM_IMAGE = Image([Layer.of(builders.file("arm"))], platform=ARM)
MANIFEST = "/v2/some/image/manifests/tag"
TAGS = "/v2/some/image/tags/list"
BLOB = bytes(range(256)) * 40
HTML = Answer(200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"})


@pytest.fixture
def server():
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def other():
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def client():
    return Registry(Transport(sleep=lambda _: None, attempts=3))


def reference(server, suffix: str = ":tag") -> Reference:
    return Reference.parse(server.reference(suffix))


@pytest.mark.parametrize("flavour", ["oci", "docker"])
def test_an_image_is_resolved_with_every_part_verified_and_its_bytes_kept(client, server, flavour):
    image = Image(IMAGE.layers, IMAGE.settings, flavour=flavour)
    digest = server.hold_image(image)
    found = client.resolve(reference(server))
    assert (found.manifest.raw, str(found.manifest.digest)) == (image.manifest, digest)
    assert (found.config.raw, found.config.cmd) == (image.config, ("x",))
    assert [str(layer.digest) for layer in found.manifest.layers] == [
        builders.sha256(each.blob) for each in image.layers
    ]
    assert (found.index, found.warnings) == (None, ())


def test_every_kind_of_manifest_is_asked_for(client, server):
    server.hold_image(IMAGE)
    client.resolve(reference(server))
    accepted = server.seen[0].headers["Accept"].split(", ")
    assert {*builders.MANIFEST_TYPES.values(), *builders.INDEX_TYPES.values()} == set(accepted)


@pytest.mark.parametrize("flavour", ["oci", "docker"])
def test_the_build_for_the_platform_is_taken_from_an_index(client, server, flavour):
    index = Index([Attestation(IMAGE), ARM_IMAGE, IMAGE], flavour)
    server.hold_image(index)
    found = client.resolve(reference(server))
    assert (found.index.raw, found.manifest.raw) == (index.manifest, IMAGE.manifest)
    assert client.resolve(reference(server), Platform("linux", "arm64")).manifest.raw == ARM_IMAGE.manifest
    with pytest.raises(NoSuchPlatform, match=r"no build for linux/s390x; there is: linux/amd64, linux/arm64"):
        client.resolve(reference(server), Platform("linux", "s390x"))


def test_a_tag_is_asked_for_once_so_that_one_image_comes_of_it(client, server):
    server.hold_image(Index([IMAGE]))
    client.resolve(reference(server))
    assert server.asked().count(MANIFEST) == 1


def test_a_digest_is_fetched_whatever_the_tag_names_by_now(client, server):
    pinned = server.hold_image(IMAGE)
    server.hold_image(ARM_IMAGE)
    found = client.resolve(reference(server, f":tag@{pinned}"))
    assert str(found.manifest.digest) == pinned
    assert MANIFEST not in server.asked()


def test_an_image_for_another_processor_is_taken_with_a_warning(client, server):
    server.hold_image(ARM_IMAGE)
    (warning,) = client.resolve(reference(server)).warnings
    assert "config says linux/arm64/v8, linux/amd64 was asked for" in warning


def test_an_image_for_another_system_is_refused(client, server):
    server.hold_image(Image([], platform={"os": "windows", "architecture": "amd64"}))
    with pytest.raises(NoSuchPlatform, match="windows/amd64"):
        client.resolve(reference(server))


def test_manifest_bytes_that_are_not_those_named_are_refused(client, server):
    pinned = server.hold_image(IMAGE)
    damaged = IMAGE.manifest.replace(b'"size"', b'"Size"')
    server.hold(f"/v2/some/image/manifests/{pinned}", damaged)
    with pytest.raises(DigestMismatch, match=pinned):
        client.resolve(reference(server, f"@{pinned}"))


def test_a_header_that_lies_about_the_digest_is_refused(client, server):
    server.hold(MANIFEST, IMAGE.manifest, docker_content_digest=builders.sha256(b"other"))
    with pytest.raises(DigestMismatch):
        client.resolve(reference(server))


def test_a_part_of_an_index_that_is_not_the_one_named_is_refused(client, server):
    server.hold_image(Index([IMAGE]))
    server.hold(f"/v2/some/image/manifests/{builders.sha256(IMAGE.manifest)}", ARM_IMAGE.manifest)
    with pytest.raises(DigestMismatch):
        client.resolve(reference(server))


def test_a_config_that_is_not_the_one_named_is_refused(client, server):
    server.hold_image(IMAGE)
    server.hold(f"/v2/some/image/blobs/{builders.sha256(IMAGE.config)}", IMAGE.config.replace(b"amd64", b"arm64"))
    with pytest.raises(DigestMismatch, match="config"):
        client.resolve(reference(server))


def test_a_config_whose_diff_ids_do_not_match_the_layers_is_refused(client, server):
    config = Image([]).config
    server.hold_blob(config)
    manifest = json.loads(IMAGE.manifest)
    manifest["config"] = builders.descriptor(builders.CONFIG_TYPES["oci"], config)
    server.hold(MANIFEST, json.dumps(manifest).encode(), content_type=IMAGE.media_type)
    with pytest.raises(MalformedConfig, match="0 diff ids for 2 layers"):
        client.resolve(reference(server))


def test_a_config_larger_than_any_config_is_not_fetched(client, server):
    manifest = json.loads(IMAGE.manifest)
    manifest["config"]["size"] = MAX_BYTES + 1
    server.hold(MANIFEST, json.dumps(manifest).encode(), content_type=IMAGE.media_type)
    with pytest.raises(MalformedConfig, match="longer than"):
        client.resolve(reference(server))


def test_a_manifest_larger_than_any_manifest_is_refused(client, server):
    server.hold(MANIFEST, b" " * (MAX_BYTES + 1), content_type=IMAGE.media_type)
    with pytest.raises(RefusedAnswer, match="longer than"):
        client.resolve(reference(server))


def test_an_index_in_an_index_is_followed_so_far_and_no_further(client, server):
    def wrap(data: bytes, media_type: str) -> bytes:
        digest = builders.sha256(data)
        server.hold(f"/v2/some/image/manifests/{digest}", data, content_type=media_type)
        entries = [builders.descriptor(media_type, data)]
        return json.dumps({"schemaVersion": 2, "mediaType": builders.INDEX_TYPES["oci"], "manifests": entries}).encode()

    server.hold_image(IMAGE)
    data, media_type = IMAGE.manifest, IMAGE.media_type
    for depth in range(1, MAX_INDEX_DEPTH + 2):
        data, media_type = wrap(data, media_type), builders.INDEX_TYPES["oci"]
        server.hold(MANIFEST, data, content_type=media_type)
        if depth <= MAX_INDEX_DEPTH:
            assert client.resolve(reference(server)).manifest.raw == IMAGE.manifest
    with pytest.raises(UnsupportedImage, match="deep"):
        client.resolve(reference(server))


@pytest.mark.parametrize("path", [MANIFEST, f"/v2/some/image/blobs/{builders.sha256(IMAGE.config)}"])
def test_a_login_page_is_no_image(client, server, path):
    server.hold_image(IMAGE)
    server.say(path, HTML)
    with pytest.raises(CaptiveAnswer, match="web page"):
        client.resolve(reference(server))


def test_a_login_page_that_calls_itself_json_is_no_image(client, server):
    server.hold(MANIFEST, b"<html>log in</html>", content_type="application/json")
    with pytest.raises(MalformedDocument, match="not valid JSON"):
        client.resolve(reference(server))


def test_a_manifest_called_by_another_name_is_refused(client, server):
    server.hold(MANIFEST, IMAGE.manifest, content_type=builders.INDEX_TYPES["oci"])
    with pytest.raises(MalformedManifest):
        client.resolve(reference(server))


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [
        (404, NoSuchImage, 1),
        (401, AccessDenied, 1),
        (403, AccessDenied, 1),
        (410, HttpStatus, 1),
        (429, TemporaryStatus, 3),
        (500, TemporaryStatus, 3),
    ],
)
def test_a_refusal_names_the_image(client, server, status, error, requests):
    server.say_always(MANIFEST, Answer(status, b'{"errors":[]}'))
    with pytest.raises(error, match=r"some/image"):
        client.resolve(reference(server))
    assert len(server.seen) == requests


def test_change_detection_costs_one_request_without_a_body(client, server):
    digest = server.hold_image(IMAGE)
    assert str(client.manifest_digest(reference(server))) == digest
    assert [(seen.method, seen.path) for seen in server.seen] == [("HEAD", MANIFEST)]


def test_without_the_header_the_digest_is_taken_of_the_bytes(client, server):
    server.hold(MANIFEST, IMAGE.manifest, content_type=IMAGE.media_type)
    assert client.manifest_digest(reference(server)) == Digest.of(IMAGE.manifest)


def test_a_pinned_digest_cannot_change(client, server):
    digest = Digest.of(b"")
    assert client.manifest_digest(reference(server, f":tag@{digest}")) == digest
    assert server.seen == []


# --- tags ----------------------------------------------------------------------------------


def page(tags: list[object], following: str = "") -> Answer:
    headers = {"Link": f'<{following}>; rel="next"'} if following else {}
    return Answer(200, json.dumps({"name": "some/image", "tags": tags}).encode(), headers)


def test_tags_come_page_by_page(client, server):
    server.say(TAGS, page(["a", "b"], f"{TAGS}?n=1000&last=b"), page(["c"], "?last=c"), page(["d"]))
    assert list(client.tags(reference(server))) == ["a", "b", "c", "d"]
    assert [seen.target for seen in server.seen] == [f"{TAGS}?n=1000", f"{TAGS}?n=1000&last=b", f"{TAGS}?last=c"]


def test_an_image_name_may_have_no_tags(client, server):
    server.hold(TAGS, b'{"name":"some/image","tags":null}')
    assert list(client.tags(reference(server))) == []


def test_malformed_tags_are_left_out_and_counted(client, server, caplog):
    server.hold_tags("good", "../x", "a/b", "", "x" * 129, "-a", "fine")
    assert list(client.tags(reference(server))) == ["good", "fine"]
    assert "count=5" in caplog.text


@pytest.mark.parametrize(
    "following",
    [
        "http://evil.example.org/v2/some/image/tags/list?last=b",
        "/v2/other/image/tags/list?last=b",
        "/v2/some/image/manifests/tag",
        "file:///etc/passwd",
        "http://[::1/",
        f"{TAGS}?a=\xe9",
    ],
)
def test_a_tag_list_continues_nowhere_else(client, server, following):
    server.say(TAGS, page(["a"], following))
    with pytest.raises(UnusableTagList, match="somewhere else"):
        list(client.tags(reference(server)))
    assert len(server.seen) == 1


def test_a_proxy_that_forgets_https_in_links_does_no_harm(client, server):
    server.say(TAGS, page(["a"], f"https://{server.host}{TAGS}?last=a"), page(["b"]))
    assert list(client.tags(reference(server))) == ["a", "b"]


def test_a_tag_list_that_goes_in_circles_is_refused(client, server):
    server.say_always(TAGS, page(["a"], "?last=a"))
    with pytest.raises(UnusableTagList, match="no end"):
        list(client.tags(reference(server)))
    assert len(server.seen) == 2


def test_a_tag_list_beyond_the_limit_is_refused(client, server):
    server.hold_tags(*(f"v{number}" for number in range(MAX_TAGS + 1)))
    with pytest.raises(UnusableTagList, match=f"more than {MAX_TAGS}"):
        list(client.tags(reference(server)))


@pytest.mark.parametrize("body", [b"[]", b'{"tags":"a"}', b'{"tags":[1]}', b"x"])
def test_a_malformed_tag_list_is_refused(client, server, body):
    server.hold(TAGS, body)
    with pytest.raises(UnusableTagList):
        list(client.tags(reference(server)))


# --- blobs ---------------------------------------------------------------------------------


def descriptor(blob: bytes = BLOB, size: int | None = None) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(blob), len(blob) if size is None else size)


def read_all(client, server, blob: Descriptor | None = None) -> bytes:
    with client.open_blob(reference(server), blob or descriptor()) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


def test_a_blob_is_read_in_pieces_and_into_buffers(client, server):
    server.hold_blob(BLOB)
    assert read_all(client, server) == BLOB
    buffer = bytearray(3000)
    with client.open_blob(reference(server), descriptor()) as stream:
        sizes = iter(lambda: stream.readinto(buffer), 0)
        assert list(sizes) == [3000, 3000, 3000, len(BLOB) - 9000]
        assert stream.read(1) == b""


def test_an_absent_blob_is_said_so_at_once(client, server):
    with pytest.raises(NoSuchImage, match=str(Digest.of(BLOB))):
        client.open_blob(reference(server), descriptor())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_broken_connection_is_taken_up_where_it_broke(client, server, chunked):
    path = server.hold_blob(BLOB)
    server.say(path, Answer(200, BLOB, cut_after=4000, chunked=chunked))
    assert read_all(client, server) == BLOB
    assert [seen.headers.get("Range") for seen in server.seen] == [None, "bytes=4000-"]


def test_a_stalled_blob_is_taken_up_again(server):
    path = server.hold_blob(BLOB)
    server.say(path, Answer(200, BLOB, silence_seconds=600))
    impatient = Registry(Transport(idle_seconds=0.5, sleep=lambda _: None, attempts=20))
    assert read_all(impatient, server) == BLOB


def test_a_server_that_ignores_ranges_sends_again_what_is_known(client, server):
    path = server.hold_blob(BLOB)
    server.say(path, Answer(200, BLOB, cut_after=4000), Answer(200, BLOB, cut_after=2000), Answer(200, BLOB))
    assert read_all(client, server) == BLOB
    assert [seen.headers.get("Range") for seen in server.seen] == [None, "bytes=4000-", "bytes=4000-"]


@pytest.mark.parametrize("content_range", ["", "bytes 0-10239/10240", "bytes 4000-10239/10241", "bytes */10240", "x"])
def test_a_server_that_resumes_at_another_place_is_refused(client, server, content_range):
    path = server.hold_blob(BLOB)
    server.say(path, Answer(200, BLOB, cut_after=4000))
    server.say(path, Answer(206, BLOB[4000:], {"Content-Range": content_range}))
    with pytest.raises(WrongLength):
        read_all(client, server)


def test_a_connection_that_always_breaks_is_given_up(client, server):
    path = server.hold_blob(BLOB)

    def cut(seen: Seen) -> Answer:
        return Answer(200, BLOB, cut_after=100)

    server.say_always(path, cut)
    with pytest.raises(Unreachable, match=r"some/image:tag: blob sha256:\w+: given up after"):
        read_all(client, server)
    assert len(server.seen) == MAX_RESUMES + 1


def test_a_blob_that_ends_too_early_every_time_is_given_up(client, server):
    path = server.hold_blob(BLOB)
    server.say_always(path, Answer(200, BLOB[:100], chunked=True))
    with pytest.raises(Unreachable, match="too early"):
        read_all(client, server)


@pytest.mark.parametrize("extra", [-1, 1])
def test_another_length_than_announced_is_refused_before_a_byte_is_read(client, server, extra):
    server.hold_blob(BLOB)
    with pytest.raises(WrongLength, match=f"{len(BLOB) + extra} bytes announced"):
        read_all(client, server, descriptor(size=len(BLOB) + extra))


def test_one_byte_more_than_announced_stops_the_read(client, server):
    path = server.hold_blob(BLOB)
    server.say(path, Answer(200, BLOB + b"x", chunked=True))
    with pytest.raises(WrongLength, match="longer than"):
        read_all(client, server)


def test_a_blob_in_a_content_coding_is_refused(client, server):
    path = server.hold_blob(BLOB)
    server.say(path, Answer(200, BLOB, {"Content-Encoding": "gzip"}))
    with pytest.raises(RefusedAnswer, match="content coding"):
        read_all(client, server)


def test_blob_storage_never_sees_the_credentials(server, other):
    path = server.hold_blob(BLOB)
    other.hold("/bucket/blob", BLOB)
    server.say(path, Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    server.say(path, Answer(307, headers={"Location": f"{other.url}/bucket/blob?signature=s3cret"}))
    client = Registry(Transport(), Credentials([Credential(server.host, "me", "pass")]))
    assert read_all(client, server) == BLOB
    assert "Authorization" in server.seen[1].headers
    assert "Authorization" not in other.seen[0].headers


def test_a_redirected_blob_is_resumed_from_the_registry(client, server, other):
    path = server.hold_blob(BLOB)
    other.hold("/bucket/blob", BLOB)
    other.say("/bucket/blob", Answer(200, BLOB, cut_after=4000))
    server.say_always(path, Answer(307, headers={"Location": f"{other.url}/bucket/blob"}))
    assert read_all(client, server) == BLOB
    assert other.seen[1].headers["Range"] == "bytes=4000-"
    assert len(server.seen) == 2


def test_only_the_registry_itself_may_ask_who_we_are(server, other):
    path = server.hold_blob(BLOB)
    server.say(path, Answer(307, headers={"Location": f"{other.url}/bucket"}))
    other.say("/bucket", Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    client = Registry(Transport(), Credentials([Credential(server.host, "me", "pass")]))
    with pytest.raises(AccessDenied):
        read_all(client, server)
    assert all("Authorization" not in seen.headers for seen in (*server.seen, *other.seen))


# --- who asks ------------------------------------------------------------------------------


def guarded(server, token: str, answer: Answer, challenge: str):
    """Answers only to those who bring the token."""

    def decide(seen: Seen) -> Answer:
        if seen.headers.get("Authorization") == token:
            return answer
        return Answer(401, headers={"WWW-Authenticate": challenge})

    return decide


def test_a_token_server_on_another_port_is_asked_once_for_many_threads(client, server, other):
    server.hold_image(IMAGE)
    challenge = f'Bearer realm="{other.url}/token",service="s",scope="repository:some/image:pull,push"'
    for path in list(server.content):
        server.say_always(path, guarded(server, "Bearer t1", server.content[path], challenge))
    other.hold("/token", b'{"access_token":"t1"}')
    threads = [threading.Thread(target=client.resolve, args=(reference(server),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [seen.target for seen in other.seen] == ["/token?service=s&scope=repository%3Asome%2Fimage%3Apull"]
    assert client.resolve(reference(server)).manifest.raw == IMAGE.manifest


def test_a_token_that_is_not_accepted_is_renewed_once(client, server, other):
    server.hold_image(IMAGE)
    challenge = f'Bearer realm="{other.url}/token"'
    other.say("/token", *(Answer(200, b'{"token":"t%d","expires_in":3000}' % number) for number in (1, 2, 3)))
    server.say(MANIFEST, guarded(server, "Bearer t1", server.content[MANIFEST], challenge))
    client.resolve(reference(server))
    server.say_always(MANIFEST, guarded(server, "Bearer t2", server.content[MANIFEST], challenge))
    client.resolve(reference(server))
    assert len(other.seen) == 2


def test_refused_credentials_are_not_tried_for_ever(server):
    server.say_always(MANIFEST, Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    client = Registry(Transport(), Credentials([Credential(server.host, "me", "s3cret")]))
    with pytest.raises(AccessDenied, match="check name and credentials") as caught:
        client.resolve(reference(server))
    assert len(server.seen) == 2
    assert "s3cret" not in str(caught.value)


def test_a_token_server_that_refuses_is_named_in_words(client, server, other):
    server.say(MANIFEST, Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{other.url}/token"'}))
    other.say("/token", Answer(403))
    with pytest.raises(AccessDenied, match="refuses anybody without credentials"):
        client.resolve(reference(server))


def test_a_bearer_realm_elsewhere_gets_not_a_byte(server):
    server.say(MANIFEST, Answer(401, headers={"WWW-Authenticate": 'Bearer realm="http://169.254.169.254/token"'}))
    client = Registry(Transport(), Credentials([Credential(server.host, "me", "s3cret")]))
    with pytest.raises(RefusedRealm):
        client.resolve(reference(server))


@pytest.mark.parametrize("name", ["a.b/c", "a", "a.b/c.d/e"])
def test_no_part_of_an_image_name_is_taken_for_a_host(client, server, name):
    digest = server.hold_image(IMAGE, name=name)
    found = client.resolve(Reference.parse(server.reference(name=name)))
    assert str(found.manifest.digest) == digest
