import datetime
import email.utils
import ipaddress
import socket
import ssl
import threading

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ducc.transport import (
    LONGEST_PAUSE_SECONDS,
    USER_AGENT,
    HttpStatus,
    RefusedAnswer,
    TemporaryStatus,
    Transport,
    Unreachable,
    Untrusted,
    retry_after_seconds,
)
from ducc.urls import origin, redacted
from tests.fakes.registry import Answer, FakeRegistry, fake_registry

NOW = 1_800_000_000.0


@pytest.fixture
def server():
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def other():
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def transport(pauses):
    """Waits for nothing but the network."""
    return Transport(sleep=pauses.append, chance=lambda: 0.5, now=lambda: NOW)


def redirect(location: str, status: int = 307) -> Answer:
    return Answer(status, headers={"Location": location})


def get(transport: Transport, url: str, limit: int = 1000, **options):
    return transport.fetch(url, limit=limit, **options)


def test_an_answer_comes_with_status_headers_and_place(transport, server):
    server.hold("/a", b"hello", content_type="text/plain")
    reply = get(transport, f"{server.url}/a")
    assert (reply.status, reply.body, reply.url) == (200, b"hello", f"{server.url}/a")
    assert reply.headers["content-type"] == "text/plain"


def test_requests_are_honest_and_ask_for_plain_bytes(transport, server):
    server.hold("/a", b"")
    get(transport, f"{server.url}/a")
    assert server.seen[0].headers["User-Agent"] == USER_AGENT
    assert server.seen[0].headers["Accept-Encoding"] == "identity"


def test_passwords_of_netrc_are_never_sent(transport, server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.hold("/a", b"")
    get(transport, f"{server.url}/a")
    assert "Authorization" not in server.seen[0].headers


def test_cookies_are_not_kept(transport, server):
    server.hold("/a", b"", set_cookie="track=me")
    get(transport, f"{server.url}/a")
    get(transport, f"{server.url}/a")
    assert "Cookie" not in server.seen[1].headers


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_a_busy_server_is_asked_again_after_a_growing_pause(transport, server, pauses, status):
    server.hold("/a", b"ok")
    server.say("/a", Answer(status), Answer(status))
    assert get(transport, f"{server.url}/a").body == b"ok"
    assert pauses == [0.25, 0.5]


def test_patience_has_an_end(transport, server, pauses):
    server.say_always("/a", Answer(503))
    with pytest.raises(TemporaryStatus, match="503") as caught:
        get(transport, f"{server.url}/a")
    assert caught.value.retryable
    assert (len(server.seen), len(pauses)) == (5, 4)


@pytest.mark.parametrize("status", [400, 403, 404, 410, 418, 501])
def test_a_definite_no_is_not_asked_again(transport, server, status):
    server.say("/a", Answer(status))
    with pytest.raises(HttpStatus, match=f"answers {status}") as caught:
        get(transport, f"{server.url}/a")
    assert (caught.value.status, caught.value.retryable, len(server.seen)) == (status, False, 1)


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("7", 7.25),
        (email.utils.formatdate(NOW + 20, usegmt=True), 20.25),
        ("1000000000", LONGEST_PAUSE_SECONDS + 0.25),
        ("9" * 400, LONGEST_PAUSE_SECONDS + 0.25),
        ("-5", 0.25),
        ("0", 0.25),
        ("soon", 0.25),
        (email.utils.formatdate(NOW - 20, usegmt=True), 0.25),
        ("Mon, 99 Foo 99999 99:99:99 GMT", 0.25),
        ("", 0.25),
    ],
)
def test_retry_after_is_honoured_up_to_a_cap(transport, server, pauses, said, waited):
    server.hold("/a", b"ok")
    server.say("/a", Answer(429, headers={"Retry-After": said}))
    get(transport, f"{server.url}/a")
    assert pauses == [waited]


def test_a_date_without_zone_is_read_or_left():
    assert retry_after_seconds("Fri, 15 Jan 2027 08:00:10 -0000", NOW) in (None, pytest.approx(10, abs=86400))


@pytest.mark.parametrize(
    "broken",
    [
        Answer(body=b"hello", length=50),
        Answer(body=b"hello", cut_after=2),
        Answer(body=b"hello", cut_after=2, chunked=True),
    ],
    ids=["short", "cut", "cut in a chunk"],
)
def test_a_broken_answer_is_asked_for_again(transport, server, broken):
    server.hold("/a", b"hello")
    server.say("/a", broken)
    assert get(transport, f"{server.url}/a").body == b"hello"
    assert len(server.seen) == 2


def test_a_silent_server_is_asked_again(server):
    server.hold("/a", b"hello")
    server.say("/a", Answer(body=b"hello", silence_seconds=600))
    transport = Transport(idle_seconds=0.5, attempts=20, sleep=lambda _: None)
    assert get(transport, f"{server.url}/a").body == b"hello"
    assert len(server.seen) >= 2


def test_nobody_there_is_said_in_one_line_without_the_query(transport, pauses):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        with pytest.raises(Unreachable) as caught:
            get(transport, f"http://127.0.0.1:{port}/a?token=s3cret")
    assert str(caught.value) == f"http://127.0.0.1:{port}/a: connection refused"
    assert len(pauses) == 4


def test_an_unknown_host_is_said_so(transport):
    with pytest.raises(Unreachable, match="host name is not known"):
        get(transport, "http://no-such-host.invalid/a")


def test_a_trickle_counts_as_silence(server):
    ticks = iter(range(10**6))
    transport = Transport(idle_seconds=2, attempts=1, clock=lambda: float(next(ticks)))
    server.hold("/a", b"x" * 3000)
    with transport.open(f"{server.url}/a") as body, pytest.raises(Unreachable, match="slower than"):
        list(iter(lambda: body.read1(100), b""))


def test_no_more_than_the_limit_is_read(transport, server):
    server.hold("/a", b"x" * 1001)
    server.say("/b", Answer(body=b"x" * 1001, chunked=True))
    for path in ("/a", "/b"):
        with pytest.raises(RefusedAnswer, match="longer than 1000 bytes"):
            get(transport, f"{server.url}{path}")
    server.hold("/c", b"x" * 1000)
    assert len(get(transport, f"{server.url}/c").body) == 1000


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "GZIP"])
def test_a_content_coding_that_was_not_asked_for_is_refused(transport, server, coding):
    server.hold("/a", b"x", content_encoding=coding)
    with pytest.raises(RefusedAnswer, match="content coding"):
        get(transport, f"{server.url}/a")


def test_other_statuses_are_returned_to_those_who_accept_them(transport, server):
    server.say("/a", Answer(404, b"gone"))
    assert get(transport, f"{server.url}/a", accept={200, 404}).body == b"gone"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(transport, server, status):
    server.hold("/b", b"there")
    server.say("/a", redirect("/b", status))
    reply = get(transport, f"{server.url}/a")
    assert (reply.body, reply.url) == (b"there", f"{server.url}/b")


def test_authorization_goes_to_the_same_origin_only(transport, server, other):
    server.say("/a", redirect("/b"))
    server.say("/b", redirect(f"{other.url}/c?signature=1"))
    other.say("/c", redirect(f"{server.url}/d"))
    server.hold("/d", b"end")
    get(transport, f"{server.url}/a", headers={"authorization": "Bearer s3cret", "X-Kept": "yes"})
    assert ["authorization" in seen.headers for seen in server.seen] == [True, True, False]
    assert "authorization" not in other.seen[0].headers
    assert other.seen[0].headers["X-Kept"] == "yes"


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
        "javascript:alert(1)",
        "http://user:s3cret@127.0.0.1/",
        "http://127.0.0.1:99999999/",
        "http://[::1/",
        "http://h\x7fst/",
        "http://b\xfccher.example/",
    ],
)
def test_a_redirect_out_of_http_is_refused(transport, server, location):
    server.say("/a", redirect(location))
    with pytest.raises(RefusedAnswer, match="redirects to") as caught:
        get(transport, f"{server.url}/a")
    assert "s3cret" not in str(caught.value)
    assert len(server.seen) == 1


def test_the_body_of_a_redirect_is_not_read(transport, server):
    server.hold("/b", b"there")
    server.say("/a", Answer(302, headers={"Location": "/b"}, length=10**15, body=b"x"))
    assert get(transport, f"{server.url}/a").body == b"there"


def test_redirects_have_an_end(transport, server):
    server.say_always("/a", redirect("/a"))
    with pytest.raises(RefusedAnswer, match="more than 10 redirects"):
        get(transport, f"{server.url}/a")
    assert len(server.seen) == 11


def test_threads_share_a_transport_and_no_connection(transport, server):
    server.hold("/a", b"x" * 900)
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.extend(get(transport, f"{server.url}/a").body for _ in range(5)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [b"x" * 900] * 40


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:s3cret@host:5/a/b?token=s3cret#s3cret", "https://host:5/a/b"),
        ("https://host", "https://host"),
        ("http://host/\x1b[2J\n", r"http://host/\x1b[2J"),
    ],
)
def test_urls_are_shown_without_secrets(url, shown):
    assert redacted(url) == shown


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """An https server whose certificate the environment trusts."""
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(_certificate())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with fake_registry(context) as registry:
        yield registry


def test_https_is_verified_with_the_authorities_of_the_environment(transport, secure):
    secure.hold("/a", b"ok")
    assert get(transport, f"{secure.url}/a").body == b"ok"


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(transport, secure, pauses, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(Untrusted, match="certificate"):
        get(transport, f"{secure.url}/a")
    assert not pauses
    assert not secure.seen


def test_a_certificate_for_another_name_is_refused(transport, secure):
    with pytest.raises(Untrusted, match="certificate"):
        get(transport, secure.url.replace("127.0.0.1", "localhost"))


def test_https_never_falls_back_to_http(transport, secure, server):
    server.hold("/b", b"plain")
    secure.say("/a", redirect(f"{server.url}/b"))
    with pytest.raises(RefusedAnswer, match="from https to http"):
        get(transport, f"{secure.url}/a")
    assert not server.seen


def _certificate() -> bytes:
    """Key and certificate for 127.0.0.1, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def test_a_fake_server_ends_with_its_block():
    with fake_registry() as registry:
        assert isinstance(registry, FakeRegistry)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(registry.host.rpartition(":")[2])))


def test_what_the_environment_says_of_a_server_is_looked_up_once(server, other, monkeypatch):
    looked_up = []

    def lookup(url, no_proxy=None):
        looked_up.append(origin(url))
        return {}

    monkeypatch.setenv("https_proxy", "http://nowhere.example")
    monkeypatch.setattr(requests.utils, "get_environ_proxies", lookup)
    transport = Transport(attempts=1)
    for _ in range(3):
        for one in (server, other):
            one.hold("/x", b"x")
            assert transport.fetch(f"{one.url}/x", limit=10).body == b"x"
    assert looked_up == [origin(server.url), origin(other.url)]


def test_a_proxy_of_the_environment_is_asked_for_those_it_is_for(server, other, monkeypatch):
    monkeypatch.setenv("http_proxy", other.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    other.hold("/from/the/proxy", b"proxy")
    other.say_always("/x", Answer(body=b"proxy"))
    server.hold("/x", b"direct")
    transport = Transport(attempts=1)
    for _ in range(2):
        assert transport.fetch(f"{server.url}/x", limit=10).body == b"direct"
        assert transport.fetch("http://nowhere.example/x", limit=10).body == b"proxy"
