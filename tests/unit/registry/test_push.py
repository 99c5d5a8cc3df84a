"""Pushing to registries that refuse, break off, or send us elsewhere: a tag moves last, or not at all."""

import pytest

from ducc.image.digest import Digest
from ducc.image.manifest import DOCKER_LIST, DOCKER_MANIFEST
from ducc.image.reference import Reference
from ducc.registry.client import Registry
from ducc.registry.credentials import AccessDenied, Credential, Credentials
from ducc.registry.push import Document, Push, PushRefused
from ducc.transport import RefusedAnswer, TemporaryStatus, Transport
from tests.builders import sha256
from tests.fakes.registry import Answer, Seen, fake_registry

BLOB, BUILD, INDEX = b"blob", b'{"build": 1}', b'{"index": 1}'
IMAGE = Push([BLOB], [Document(DOCKER_MANIFEST, BUILD), Document(DOCKER_LIST, INDEX)])
UPLOADS = "/v2/some/image/blobs/uploads/"
TAG = "/v2/some/image/manifests/tag"
SESSION = "/session/1"


def take(server):
    """Let *server* take what is pushed, as registries do."""
    server.say_always(UPLOADS, Answer(202, headers={"Location": f"{SESSION}?state=x%2Fy"}))
    server.say_always(SESSION, Answer(201))
    for name in (sha256(BUILD), "tag"):
        server.say_always(f"/v2/some/image/manifests/{name}", Answer(201))


@pytest.fixture
def server():
    with fake_registry() as made:
        take(made)
        yield made


def push(server, *credentials):
    client = Registry(Transport(sleep=lambda _: None, attempts=2), Credentials(credentials))
    client.push(Reference.parse(server.reference()), IMAGE)


def puts(server):
    return [seen for seen in server.seen if seen.method == "PUT"]


def test_blobs_go_first_and_the_tag_last(server):
    push(server)
    blob, build, index = puts(server)
    assert (blob.target, blob.body) == (f"{SESSION}?state=x%2Fy&digest=sha256%3A{sha256(BLOB)[7:]}", BLOB)
    assert (build.path, build.body) == (f"/v2/some/image/manifests/{sha256(BUILD)}", BUILD)
    assert (index.path, index.body, index.headers["Content-Type"]) == (TAG, INDEX, DOCKER_LIST)


def test_a_blob_that_is_there_is_not_sent(server):
    server.hold_blob(BLOB)
    push(server)
    assert server.asked("POST") == []
    assert [seen.path for seen in puts(server)][-1] == TAG


def test_an_upload_that_breaks_off_is_begun_anew(server):
    server._script[SESSION].insert(0, Answer(503))
    push(server)
    assert server.asked("POST") == [UPLOADS, UPLOADS]


@pytest.mark.parametrize("path", [UPLOADS, SESSION, f"/v2/some/image/manifests/{sha256(BUILD)}"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, PushRefused),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, PushRefused),
        (405, PushRefused),
        (413, PushRefused),
        (200, PushRefused),
        (500, TemporaryStatus),
    ],
)
def test_whatever_is_refused_is_told_in_one_line_and_the_tag_stays(server, path, status, error):
    challenge = {"WWW-Authenticate": "Basic realm=x"}
    server.say_always(path, Answer(status, b"{}", challenge if status == 401 else {}))
    with pytest.raises(error) as refused:
        push(server, Credential(server.host, "user", "password", scheme="http"))
    assert "\n" not in str(refused.value)
    assert TAG not in [seen.path for seen in puts(server)]


@pytest.mark.parametrize("location", ["ftp://host/x", "http://user:password@host/x", "http://[broken", "\x7f"])
def test_an_upload_goes_nowhere_but_where_one_may_go(server, location):
    server.say_always(UPLOADS, Answer(202, headers={"Location": location}))
    with pytest.raises(RefusedAnswer):
        push(server)


def test_only_the_registry_itself_is_told_who_we_are(server):
    with fake_registry() as elsewhere:
        elsewhere.say_always("/store", Answer(201))
        server.say_always(UPLOADS, Answer(202, headers={"Location": f"{elsewhere.url}/store"}))

        def guarded(seen: Seen) -> Answer:
            known = "Authorization" in seen.headers
            return Answer(404 if known else 401, headers={"WWW-Authenticate": "Basic realm=x"})

        server.say_always(f"/v2/some/image/blobs/{sha256(BLOB)}", guarded)
        push(server, Credential(server.host, "user", "password", scheme="http"))
        assert [seen.body for seen in puts(elsewhere)] == [BLOB]
        assert all("Authorization" not in seen.headers for seen in elsewhere.seen)
        assert "Authorization" in puts(server)[-1].headers


@pytest.mark.parametrize(
    ("answer", "digest"),
    [
        (Answer(200, headers={"Docker-Content-Digest": sha256(INDEX)}), Digest.of(INDEX)),
        (Answer(200, headers={"Docker-Content-Digest": "nonsense"}), None),
        (Answer(200), None),
        (Answer(404), None),
        (Answer(403), None),
    ],
)
def test_what_a_tag_names_is_known_or_pushed_again(server, answer, digest):
    server.say_always(TAG, answer)
    assert Registry(Transport(attempts=1)).pushed(Reference.parse(server.reference())) == digest
