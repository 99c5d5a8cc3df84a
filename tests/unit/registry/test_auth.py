import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ducc.errors import DuccError
from ducc.image.reference import Reference
from ducc.registry.auth import (
    MAX_CHALLENGES,
    Authorizer,
    Challenge,
    RefusedRealm,
    checked_realm,
    parse_challenges,
    read_token,
)
from ducc.registry.credentials import AccessDenied, Credential, Credentials
from ducc.transport import HttpStatus, Reply, TemporaryStatus

IMAGE = Reference.parse("https://registry.example.org/group/image:1")
BEARER = 'Bearer realm="https://auth.example.org/token",service="registry",scope="repository:group/image:pull"'


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ('Basic realm="a"', [("basic", {"realm": "a"})]),
        ("Basic realm=a", [("basic", {"realm": "a"})]),
        ('bearer REALM = "a" , Service="b"', [("bearer", {"realm": "a", "service": "b"})]),
        (
            'Bearer realm="https://h/t?a=b,c",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://h/t?a=b,c", "scope": "repository:a/b:pull,push"})],
        ),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        (
            'Bearer realm="a",service="b", Basic realm="c"',
            [("bearer", {"realm": "a", "service": "b"}), ("basic", {"realm": "c"})],
        ),
        ('Negotiate, Basic realm="c"', [("negotiate", {}), ("basic", {"realm": "c"})]),
        ('Negotiate YWJj==, Basic realm="c"', [("negotiate", {}), ("basic", {"realm": "c"})]),
        (',, Basic realm="c" ,', [("basic", {"realm": "c"})]),
        ('Bearer realm=""', [("bearer", {"realm": ""})]),
    ],
)
def test_challenges_are_read_with_commas_and_equal_signs_in_quotes(header, challenges):
    assert parse_challenges(header) == [Challenge(scheme, parameters) for scheme, parameters in challenges]


@pytest.mark.parametrize(
    "header",
    [
        'Bearer realm="unterminated',
        'Bearer realm="a\\"',
        'Bearer realm="a",realm="b"',
        "Bearer =x",
        '"Bearer"',
        ", ".join(['Basic realm="x"'] * (MAX_CHALLENGES + 1)),
        'Bearer realm="' + "x" * 10_000 + '"',
        "é",
    ],
    ids=lambda header: header[:30],
)
def test_malformed_challenges_are_refused(header):
    with pytest.raises(AccessDenied, match=r"^host/a: its challenge"):
        parse_challenges(header, "host/a")


@given(st.text('Bearlm="\\, x', max_size=60))
def test_any_header_is_read_or_refused(header):
    try:
        read = parse_challenges(header)
    except AccessDenied:
        read = []
    assert len(read) <= MAX_CHALLENGES


@pytest.mark.parametrize(
    "realm",
    [
        "https://auth.example.org/token",
        "https://registry.example.org:444/token?account=x",
        "https://8.8.8.8/token",
    ],
)
def test_a_token_server_on_the_internet_may_be_asked(realm):
    assert checked_realm(realm, IMAGE).geturl() == realm


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "token",
        "//auth.example.org/token",
        "http://auth.example.org/token",
        "http://registry.example.org/token",
        "ftp://auth.example.org/token",
        "file:///etc/passwd",
        "https:///token",
        "https://user:pass@auth.example.org/token",
        "https://user@registry.example.org/token",
        "https://localhost/token",
        "https://foo.localhost/token",
        "https://LOCALHOST./token",
        "https://127.0.0.1/token",
        "https://[::1]/token",
        "https://[::ffff:127.0.0.1]/token",
        "https://[fe80::1]/token",
        "https://10.0.0.1/token",
        "https://192.168.1.1/token",
        "https://169.254.169.254/latest/meta-data",
        "https://0.0.0.0/token",
        "https://100.64.0.1/token",
        "https://2130706433/token",
        "https://127.1/token",
        "https://0x7f.0.0.0x1/token",
        "https://auth.example.org:99999/token",
        "https://[::1/token",
        "https://auth.example.org/\r\nX: y",
        "https://bücher.example/token",
    ],
)
def test_no_other_token_server_is_asked(realm):
    with pytest.raises(RefusedRealm):
        checked_realm(realm, IMAGE)


def test_a_plain_registry_may_have_a_plain_token_server_on_its_own_host_only():
    image = Reference.parse("http://127.0.0.1:5000/a:1")
    assert checked_realm("http://127.0.0.1:5001/token", image).port == 5001
    for realm in ("http://127.0.0.2/token", "http://auth.example.org/token", "http://localhost/token"):
        with pytest.raises(RefusedRealm):
            checked_realm(realm, image)


@pytest.mark.parametrize(
    ("body", "token", "seconds"),
    [
        (b'{"token":"a","expires_in":100}', "a", 90),
        (b'{"access_token":"a","expires_in":100}', "a", 90),
        (b'{"token":"a","access_token":"b"}', "a", 54),
        (b'{"token":"","access_token":"b"}', "b", 54),
        (b'{"token":"a"}', "a", 54),
        (b'{"token":"a","expires_in":0}', "a", 54),
        (b'{"token":"a","expires_in":-10}', "a", 54),
        (b'{"token":"a","expires_in":"soon"}', "a", 54),
        (b'{"token":"a","expires_in":true}', "a", 54),
        (b'{"token":"a","expires_in":null}', "a", 54),
        (b'{"token":"a","expires_in":1000000000000}', "a", 3240),
    ],
)
def test_tokens_live_as_long_as_said_within_reason(body, token, seconds):
    assert read_token(body, "host") == (token, pytest.approx(seconds))


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"token":null}',
        b'{"token":1}',
        rb'{"token":"a\r\nX: y"}',
        b'{"token":"a b"}',
        '{"token":"ü"}'.encode(),
        b"<html>",
        b'{"token":"' + b"a" * 1024 * 1024 + b'"}',
    ],
    ids=lambda body: ascii(body[:20]),
)
def test_an_answer_without_a_usable_token_is_refused(body):
    with pytest.raises(AccessDenied, match=r"^host: "):
        read_token(body, "host")


class TokenServer:
    """Stands where the transport does."""

    def __init__(self, expires_in: int = 100) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.expires_in = expires_in

    def fetch(self, url: str, *, limit: int, headers: dict | None = None, method: str = "GET", form=None) -> Reply:
        self.asked.append((url, form if method == "POST" else headers))
        return Reply(200, {}, url, b'{"token":"t%d","expires_in":%d}' % (len(self.asked), self.expires_in))


def authorizer(server: TokenServer, *credentials: Credential, clock=lambda: 0.0) -> Authorizer:
    return Authorizer(server, Credentials(credentials), clock)


def test_a_token_is_asked_for_once_and_used_until_it_expires():
    now = [0.0]
    server = TokenServer(expires_in=100)
    waiter = authorizer(server, clock=lambda: now[0])
    assert waiter.headers(IMAGE) == {}
    assert waiter.answer(IMAGE, BEARER, {}) == {"Authorization": "Bearer t1"}
    now[0] = 89.0
    assert waiter.headers(IMAGE) == {"Authorization": "Bearer t1"}
    now[0] = 91.0
    assert waiter.headers(IMAGE) == {}


def test_of_many_that_wait_for_a_token_one_asks():
    server = TokenServer()
    waiter = authorizer(server)
    assert [waiter.answer(IMAGE, BEARER, {})["Authorization"] for _ in range(5)] == ["Bearer t1"] * 5
    assert waiter.answer(IMAGE, BEARER, {"Authorization": "Bearer t1"}) == {"Authorization": "Bearer t2"}
    assert len(server.asked) == 2


def test_a_token_is_for_one_image_name():
    waiter = authorizer(TokenServer())
    waiter.answer(IMAGE, BEARER, {})
    assert waiter.headers(Reference.parse("https://registry.example.org/group/other:1")) == {}
    assert waiter.headers(IMAGE.with_tag("2")) == {"Authorization": "Bearer t1"}


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ("", "repository%3Agroup%2Fimage%3Apull"),
        ("repository:group/image:pull,push,delete", "repository%3Agroup%2Fimage%3Apull"),
        ("repository:group/image:*", "repository%3Agroup%2Fimage%3Apull"),
        ("repository:group/image:metadata_read", "repository%3Agroup%2Fimage%3Apull%2Cmetadata_read"),
        ("repository:mirror/group/image:pull", "repository%3Amirror%2Fgroup%2Fimage%3Apull"),
    ],
)
def test_never_more_is_asked_for_than_to_read_the_one_image(scope, asked):
    server = TokenServer()
    authorizer(server).answer(IMAGE, f'Bearer realm="https://auth.example.org/t?x=y",service="s",scope="{scope}"', {})
    assert server.asked == [(f"https://auth.example.org/t?x=y&service=s&scope={asked}", {})]


@pytest.mark.parametrize(
    "scope",
    [
        "repository:group/other:pull",
        "repository:othergroup/image:pull",
        "registry:catalog:*",
        "repository:group/image:pull repository:secret:pull",
        "repository:group/image",
        "x",
    ],
)
def test_a_registry_that_wants_us_to_ask_for_something_else_is_refused(scope):
    server = TokenServer()
    with pytest.raises(AccessDenied, match="something else"):
        authorizer(server).answer(IMAGE, f'Bearer realm="https://auth.example.org/t",scope="{scope}"', {})
    assert server.asked == []


def test_credentials_go_to_a_checked_token_server_only():
    server = TokenServer()
    waiter = authorizer(server, Credential("registry.example.org", "me", "s3cret"))
    with pytest.raises(RefusedRealm) as caught:
        waiter.answer(IMAGE, 'Bearer realm="https://169.254.169.254/t"', {})
    assert server.asked == []
    waiter.answer(IMAGE, BEARER, {})
    assert server.asked[0][1] == {"Authorization": "Basic bWU6czNjcmV0"}
    assert "s3cret" not in str(caught.value)


def test_basic_sends_the_credentials_that_are_meant_for_the_registry():
    waiter = authorizer(TokenServer(), Credential("registry.example.org", "mé", "pässwörd:x"))
    assert waiter.answer(IMAGE, 'Basic realm="x"', {}) == {"Authorization": "Basic bcOpOnDDpHNzd8O2cmQ6eA=="}
    assert waiter.headers(IMAGE)


@pytest.mark.parametrize("challenge", ['Basic realm="x"', "Negotiate", "", "Digest realm=x"])
def test_without_credentials_or_a_known_scheme_there_is_no_way_in(challenge):
    with pytest.raises(AccessDenied, match="registry asks"):
        authorizer(TokenServer()).answer(IMAGE, challenge, {})


IDENTITY = Credential("registry.example.org", "", "refr3sh", is_identity_token=True)


def test_an_identity_token_is_exchanged_in_a_form_and_stands_in_no_url():
    server = TokenServer()
    assert authorizer(server, IDENTITY).answer(IMAGE, BEARER, {}) == {"Authorization": "Bearer t1"}
    ((url, form),) = server.asked
    assert url == "https://auth.example.org/token"
    assert form == {
        "service": "registry",
        "scope": "repository:group/image:pull",
        "grant_type": "refresh_token",
        "refresh_token": "refr3sh",
        "client_id": "ducc",
    }


def test_an_identity_token_is_no_password():
    with pytest.raises(AccessDenied, match="user name and password"):
        authorizer(TokenServer(), IDENTITY).answer(IMAGE, 'Basic realm="x"', {})


class SlowServer(TokenServer):
    """Answers when told to, and then as it was told to."""

    def __init__(self, error: DuccError | None = None) -> None:
        super().__init__()
        self.may_answer, self.error = threading.Event(), error

    def fetch(self, *arguments, **options) -> Reply:
        self.may_answer.wait(60)
        reply = super().fetch(*arguments, **options)
        if self.error is not None:
            raise self.error
        return reply


def in_line(waiter: Authorizer) -> int:
    """How many threads wait for what another one is asking."""
    return sum(len(asking._condition._waiters) for asking in list(waiter._asking.values()))


@pytest.mark.parametrize("credential", [IDENTITY, Credential("registry.example.org", "me", "s3cret")])
@pytest.mark.parametrize("status", [None, 400, 401, 503])
def test_of_many_that_wait_one_asks_and_all_hear_what_it_hears(credential, status):
    kinds = {None: None, 503: TemporaryStatus("https://t", 503, None)}
    error = kinds.get(status, HttpStatus("https://t", status or 0))
    server = SlowServer(error)
    waiter = authorizer(server, credential)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(waiter.answer, IMAGE, BEARER, {}) for _ in range(8)]
        deadline = time.monotonic() + 60
        while in_line(waiter) < 7:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        server.may_answer.set()
        outcomes = [one.exception() or one.result() for one in waiting]
    assert len(server.asked) == 1
    if error is None:
        assert outcomes == [{"Authorization": "Bearer t1"}] * 8
    else:
        expected = TemporaryStatus if status == 503 else AccessDenied
        assert {type(one) for one in outcomes} == {expected}
        assert all("s3cret" not in str(one) and "refr3sh" not in str(one) for one in outcomes)


def test_after_a_failure_the_next_one_asks_anew():
    server = SlowServer(HttpStatus("https://t", 401))
    server.may_answer.set()
    waiter = authorizer(server, IDENTITY)
    with pytest.raises(AccessDenied, match="refuses the credentials"):
        waiter.answer(IMAGE, BEARER, {})
    server.error = None
    assert waiter.answer(IMAGE, BEARER, {}) == {"Authorization": "Bearer t2"}


def test_a_private_token_server_is_asked_only_if_the_operator_names_it():
    realm = "https://10.1.2.3/token"
    assert checked_realm(realm, IMAGE, ["10.1.2.3"]).geturl() == realm
    for other in ("https://10.1.2.4/token", "http://10.1.2.3/token"):
        with pytest.raises(RefusedRealm):
            checked_realm(other, IMAGE, ["10.1.2.3"])
