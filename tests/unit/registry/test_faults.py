"""What may go wrong between a registry and us, and what comes of it: one row at least for each of F34 to F39.

| row | here | and in depth |
|---|---|---|
| F34 connections | CONNECTIONS, SILENCE | unit/test_transport.py, test_client.py (resuming) |
| F35 refusals, `Retry-After` | REFUSALS | test_manners.py |
| F36 tokens | TOKENS | test_auth.py (one refresh for all) |
| F37 tags that move | test_a_tag_that_moves… | test_builds.py |
| F38 a registry that is gone | test_a_registry_that_is_gone… | the daemon keeps what is published |
| F39 blobs that change | BLOBS | |
"""

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from ducc.errors import DuccError
from ducc.image.digest import Digest, DigestMismatch
from ducc.image.reference import Reference
from ducc.layer.stream import VerifiedStream
from ducc.reach import Reach
from ducc.registry.area import Area
from ducc.registry.blob import WrongLength
from ducc.registry.client import NoSuchImage, Registry
from ducc.registry.credentials import AccessDenied, Credential, Credentials
from ducc.registry.manners import Manners
from ducc.registry.settings import AreaSettings, RegistriesSettings
from ducc.transport import HttpStatus, TemporaryStatus, Transport, Unreachable
from tests import builders
from tests.builders import Image, Layer, file
from tests.fakes.registry import Answer, FakeRegistry, Seen, fake_registry

CANARY = "c4nary-s3cret"
IMAGE, NEWER = (Image([Layer.of(file(name, name.encode() * 900))]) for name in ("image", "newer"))
BLOB = IMAGE.layers[0].blob
MANIFEST = "/v2/some/image/manifests/tag"
LAYER = f"/v2/some/image/blobs/{builders.sha256(BLOB)}"


@pytest.fixture
def server():
    with fake_registry() as registry:
        registry.hold_image(IMAGE)
        yield registry


def client(attempts: int = 3, *known: Credential) -> Registry:
    return Registry(Transport(sleep=lambda _: None, attempts=attempts), Credentials(known))


def impatient(attempts: int) -> Registry:
    """Takes half a second for silence; so many attempts that a slow machine fails not all of them."""
    return Registry(Transport(sleep=lambda _: None, attempts=attempts, connect_seconds=1, idle_seconds=0.5))


def reference(server) -> Reference:
    return Reference.parse(server.reference())


def pulled(registry: Registry, image: Reference) -> bytes:
    """The one layer of an image, verified as a conversion does."""
    (layer,) = registry.resolve(image).manifest.layers
    with registry.open_blob(image, layer) as blob:
        stream = VerifiedStream(blob, layer.digest, layer.size, f"layer {layer.digest}")
        return b"".join(iter(lambda: stream.read(100), b""))


@pytest.mark.parametrize("path", [MANIFEST, LAYER], ids=["manifest", "layer"])
@pytest.mark.parametrize(
    "cut",
    [
        Answer(200, cut_after=0),
        Answer(200, cut_after=20),
        Answer(200, cut_after=-1),
        Answer(200, cut_after=20, chunked=True),
    ],
    ids=["F34 nothing", "F34 early", "F34 one byte missing", "F34 chunk cut"],
)
def test_a_connection_that_breaks_costs_nothing_but_another(server, path, cut):
    held = server.content[path]
    broken = Answer(200, held.body, held.headers, cut_after=cut.cut_after, chunked=cut.chunked)
    server.say(path, broken, broken)
    assert pulled(client(), reference(server)) == BLOB


@pytest.mark.parametrize("path", [MANIFEST, LAYER], ids=["F34 manifest", "F34 layer"])
def test_silence_costs_nothing_but_another_request(server, path):
    silent = Answer(200, server.content[path].body, server.content[path].headers, silence_seconds=600)
    server.say(path, silent, silent)
    assert pulled(impatient(attempts=20), reference(server)) == BLOB


def test_a_layer_that_always_breaks_at_half_is_finished_all_the_same(server):
    def half(seen: Seen) -> Answer:
        first = int(seen.headers.get("Range", "bytes=0-")[6:-1])
        rest, total = BLOB[first:], len(BLOB)
        headers = {"Content-Range": f"bytes {first}-{total - 1}/{total}"} if first else {}
        return Answer(206 if first else 200, rest, headers, cut_after=(len(rest) + 1) // 2)

    server.say(LAYER, *[half] * 5)
    assert pulled(client(), reference(server)) == BLOB


def test_what_is_resumed_is_the_entity_that_was_begun(server):
    server.say(LAYER, Answer(200, BLOB, {"ETag": '"one"'}, cut_after=50))
    pulled(client(), reference(server))
    assert (server.seen[-1].headers["Range"], server.seen[-1].headers["If-Range"]) == ("bytes=50-", '"one"')


@pytest.mark.parametrize("etag", ['W/"weak"', "bare", "", '"' + "x" * 500])
def test_only_a_strong_entity_tag_says_that_bytes_are_the_same(server, etag):
    server.say(LAYER, Answer(200, BLOB, {"ETag": etag}, cut_after=50))
    pulled(client(), reference(server))
    assert "If-Range" not in server.seen[-1].headers


@pytest.fixture
def deaf() -> Iterator[str]:
    """A host:port that accepts connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed() -> Iterator[str]:
    """A host:port where nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("https://no-such-host.invalid", "not known"),
        ("http://{closed}", "refused"),
        ("http://{deaf}", "silent"),
        ("https://{deaf}", "no TLS|silent|no connection"),
    ],
    ids=["F34 no such host", "F34 refused", "F34 accepted and silent", "F34 silent before TLS"],
)
def test_who_does_not_answer_is_said_so_in_time(deaf, closed, where, said):
    started = time.monotonic()
    with pytest.raises(Unreachable, match=said):
        impatient(attempts=2).resolve(Reference.parse(where.format(deaf=deaf, closed=closed) + "/some/image:tag"))
    assert time.monotonic() - started < 60


def test_each_phase_has_its_own_time(server):
    """The head may take long, the rest may not: what a cache does that fetches first."""
    reach = Reach(first_byte_seconds=60, idle_seconds=1.5)
    settings = RegistriesSettings({Area(server.host): AreaSettings(reach=reach)})
    manners = Manners(settings)
    registry = Registry(Transport(manners=manners, attempts=1, sleep=lambda _: None), manners=manners)
    server.say(MANIFEST, Answer(200, IMAGE.manifest, server.content[MANIFEST].headers, silence_seconds=2.5))
    assert pulled(registry, reference(server)) == BLOB
    server.say(LAYER, Answer(200, BLOB, silence_seconds=600, stall_after=10))
    assert pulled(registry, reference(server)) == BLOB
    assert server.seen[-1].headers["Range"] == "bytes=10-"


REFUSALS: list[tuple[int, type[DuccError], int]] = [
    (404, NoSuchImage, 1),
    (403, AccessDenied, 1),
    (410, HttpStatus, 1),
    (400, HttpStatus, 1),
    (429, TemporaryStatus, 3),
    (500, TemporaryStatus, 3),
    (502, TemporaryStatus, 3),
    (503, TemporaryStatus, 3),
    (504, TemporaryStatus, 3),
]


@pytest.mark.parametrize(("status", "error", "tries"), REFUSALS, ids=[f"F35 {row[0]}" for row in REFUSALS])
@pytest.mark.parametrize("path", [MANIFEST, LAYER], ids=["manifest", "layer"])
def test_what_may_pass_is_tried_again_and_nothing_else(server, path, status, error, tries):
    server.say_always(path, Answer(status, b"{}"))
    with pytest.raises(error, match="some/image") as caught:
        pulled(client(), reference(server))
    assert server.asked().count(path) == tries
    assert caught.value.retryable == (tries > 1)


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_a_registry_that_knows_no_head_is_asked_for_the_manifest(server, status):
    def no_head(seen: Seen) -> Answer:
        return Answer(status) if seen.method == "HEAD" else server.content[MANIFEST]

    server.say_always(MANIFEST, no_head)
    assert client().manifest_digest(reference(server)) == Digest.of(IMAGE.manifest)


def test_an_image_that_is_forbidden_stays_so(server):
    server.say_always(MANIFEST, Answer(403))
    with pytest.raises(AccessDenied, match="403"):
        client().manifest_digest(reference(server))
    assert len(server.seen) == 2


def guarded(server: FakeRegistry, token: Callable[[], str]) -> None:
    """Let in only who brings the token of the moment."""

    def guard(path: str) -> Callable[[Seen], Answer]:
        def decide(seen: Seen) -> Answer:
            if seen.headers.get("Authorization") == f"Bearer {token()}":
                return server.content[path]
            return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})

        return decide

    for path in list(server.content):
        server.say_always(path, guard(path))


def test_a_token_that_ends_in_the_middle_of_an_image_is_renewed(server):
    """F36"""
    tokens = iter(["t1", "t2", "t3", "t4"])
    now = ["t1"]
    guarded(server, lambda: now[0])

    def renew(_: Seen) -> Answer:
        now[0] = next(tokens)
        return Answer(200, b'{"token":"%s"}' % now[0].encode())

    server.say_always("/token", renew)
    registry, image = client(), reference(server)
    (layer,) = registry.resolve(image).manifest.layers
    now[0] = "another"
    with registry.open_blob(image, layer) as blob:
        assert blob.read(len(BLOB)) == BLOB
    assert server.asked().count("/token") == 2


TOKENS: list[tuple[str, list[Answer], type[DuccError] | None]] = [
    ("F36 fails once", [Answer(503), Answer(200, b'{"token":"t"}')], None),
    ("F36 fails for long", [Answer(503)] * 3, TemporaryStatus),
    ("F36 revoked", [Answer(401)], AccessDenied),
    ("F36 revoked, by the book", [Answer(400, b'{"error":"invalid_grant"}')], AccessDenied),
]


@pytest.mark.parametrize(("answers", "error"), [pytest.param(*row[1:], id=row[0]) for row in TOKENS])
@pytest.mark.parametrize("is_token", [False, True], ids=["password", "identity token"])
def test_a_refresh_that_fails_is_tried_again_or_is_an_error_of_its_name(server, answers, error, is_token):
    guarded(server, lambda: "t")
    server.say("/token", *answers)
    known = Credential(server.host, "" if is_token else "me", CANARY, is_identity_token=is_token)
    registry = client(3, known)
    if error is None:
        assert pulled(registry, reference(server)) == BLOB
        return
    with pytest.raises(error) as caught:
        pulled(registry, reference(server))
    assert CANARY not in str(caught.value)
    assert all(CANARY not in seen.target for seen in server.seen)


def test_a_form_with_a_secret_follows_no_redirect(server):
    guarded(server, lambda: "t")
    server.say("/token", Answer(307, headers={"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(DuccError, match="meant for it alone"):
        pulled(client(2, Credential(server.host, "", CANARY, is_identity_token=True)), reference(server))
    assert "/elsewhere" not in [seen.path for seen in server.seen]


def test_a_tag_that_moves_during_a_pull_gives_the_image_that_was_begun(server):
    """F37"""
    registry, image = client(), reference(server)
    begun = registry.resolve(image)
    server.hold_image(NEWER)
    with registry.open_blob(image, begun.manifest.layers[0]) as blob:
        assert blob.read(len(BLOB)) == BLOB
    assert registry.manifest_digest(image) == Digest.of(NEWER.manifest)
    assert pulled(registry, image) == NEWER.layers[0].blob


def test_a_registry_that_is_gone_is_unreachable_and_never_empty(closed):
    """F38: nobody may take it for a registry that has nothing."""
    image = Reference.parse(f"http://{closed}/some/image:tag")
    registry = client(attempts=2)
    for ask in (registry.resolve, registry.manifest_digest, lambda image: list(registry.tags(image))):
        with pytest.raises(Unreachable) as caught:
            ask(image)
        assert caught.value.retryable


def test_a_registry_that_is_back_is_asked_at_once(server):
    """F38"""
    registry = client(attempts=1)
    server.say(MANIFEST, *[Answer(503, headers={"Retry-After": "0"})] * 3)
    for _ in range(3):
        with pytest.raises(TemporaryStatus):
            registry.manifest_digest(reference(server))
    assert pulled(registry, reference(server)) == BLOB


BLOBS: list[tuple[str, Answer, type[DuccError]]] = [
    ("F39 deleted", Answer(404, b"{}"), NoSuchImage),
    ("F39 other bytes", Answer(200, bytes(len(BLOB))), DigestMismatch),
    ("F39 shorter", Answer(200, BLOB[:-1]), WrongLength),
    ("F39 longer", Answer(200, BLOB + b"x"), WrongLength),
]


@pytest.mark.parametrize(("answer", "error"), [pytest.param(*row[1:], id=row[0]) for row in BLOBS])
@pytest.mark.parametrize("begun", [False, True], ids=["before", "in the middle"])
def test_a_blob_that_changes_is_an_error_and_from_the_manifest_it_goes_well(server, answer, error, begun):
    if begun:
        server.say(LAYER, Answer(200, BLOB, cut_after=40))
    server.say(LAYER, answer)
    registry = client()
    with pytest.raises(error, match="sha256:"):
        pulled(registry, reference(server))
    assert pulled(registry, reference(server)) == BLOB
