"""Servers and proxies that fail in every way, behind one store; all of them are real sockets on loopback."""

import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from ducc.client.network.settings import DIRECT, NetworkSettings
from ducc.client.network.store import NetworkStore
from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError
from ducc.storage.base import ObjectMissing, StoreUnavailable
from tests.fakes.registry import Answer, FakeRegistry, Seen, fake_registry

BODY = zlib.compress(b"content")
NAME = ObjectName.of(BODY)
PATH = f"/cvmfs/repo/{NAME.path}"
PAGE = Answer(200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"})
DAMAGED = Answer(200, BODY[:-1] + b"!")
NOWHERE = "http://127.0.0.1:1"


class Damage(DuccError):
    pass


def check(body: bytes) -> None:
    if body != BODY:
        raise Damage("damaged")


@pytest.fixture
def servers() -> Iterator[list[FakeRegistry]]:
    with fake_registry() as one, fake_registry() as two:
        for server in (one, two):
            server.hold(PATH, BODY)
        yield [one, two]


@pytest.fixture
def proxy() -> Iterator[FakeRegistry]:
    """Forwards, unless a test tells it something else for a path."""
    with fake_registry() as proxy:
        proxy.say_always(PATH, forward)
        yield proxy


def forward(seen: Seen) -> Answer:
    kept = {name: seen.headers[name] for name in ("Cache-Control", "User-Agent") if name in seen.headers}
    request = urllib.request.Request(seen.target, headers=kept)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return Answer(answer.status, answer.read(), {"Content-Type": answer.headers.get("Content-Type", "x/y")})
    except urllib.error.HTTPError as error:
        return Answer(error.code)
    except OSError:
        return Answer(503, headers={"X-Squid-Error": "ERR_CONNECT_FAIL 111"})


def store_of(*hosts: str | FakeRegistry, proxies: Any = ((DIRECT,),), **more: Any) -> NetworkStore:
    urls = tuple(host if isinstance(host, str) else f"{host.url}/cvmfs/repo" for host in hosts)
    groups = tuple(tuple(one if isinstance(one, str) else one.url for one in group) for group in proxies)
    patient = {"proxy_timeout_seconds": 60, "direct_timeout_seconds": 60, "retries": 0}
    settings = NetworkSettings(urls, groups, **{**patient, **more})
    return NetworkStore(settings, shuffle=lambda names: None, sleep=lambda seconds: None, chance=lambda: 0.5)


def get(store: NetworkStore) -> bytes:
    return store.get_checked(NAME, check)


FAULTS = {
    "busy": Answer(503),
    "broken": Answer(500, b"oops"),
    "damaged": DAMAGED,
    "web page": PAGE,
    "way to a web page": Answer(302, headers={"Location": "http://login.example.org/"}),
    "silent": Answer(200, BODY, silence_seconds=600),
    "stalled": Answer(200, BODY, stall_after=3, silence_seconds=600),
    "cut off": Answer(200, BODY, cut_after=3),
    "too short": Answer(200, BODY, length=len(BODY) + 5),
    "coded": Answer(200, BODY, {"Content-Encoding": "gzip"}),
    "a definite no": Answer(404),
}


# Who would otherwise wait for an answer that never comes; others are waited for, however slow the machine is.
IMPATIENT = {"proxy_timeout_seconds": 1.5, "direct_timeout_seconds": 1.5}


def patience(fault: str) -> dict[str, Any]:
    return IMPATIENT if fault in ("silent", "stalled") else {}


# --- servers -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_when_a_server_fails_the_next_one_is_asked(
    fault: str, servers: list[FakeRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = servers
    one.say_always(PATH, FAULTS[fault])
    store = store_of(one, two, **patience(fault))
    assert [get(store) for _ in range(3)] == [BODY] * 3
    assert len(two.seen) == 3
    if fault != "a definite no":
        assert len(one.seen) <= 2  # and no more: it is passed over, for a while


def test_a_dead_server_costs_one_attempt_and_is_asked_again_when_its_time_is_up(
    servers: list[FakeRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = servers
    one.say(PATH, Answer(500))
    store = store_of(one, two, host_reset_seconds=300)
    assert (get(store), get(store)) == (BODY, BODY)
    assert (len(one.seen), len(two.seen)) == (1, 2)
    store.hosts._failed_at = {name: at - 300 for name, at in store.hosts._failed_at.items()}
    assert get(store) == BODY
    assert (len(one.seen), len(two.seen)) == (2, 2)


def test_an_object_is_missing_when_every_server_says_so(
    servers: list[FakeRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    other = ObjectName.of(b"other")
    with pytest.raises(ObjectMissing):
        store_of(*servers).get(other)
    assert store_of(*servers).read_file(".cvmfsnothing") is None
    with pytest.raises(StoreUnavailable):  # one of them can't say
        store_of(servers[0], f"{NOWHERE}/cvmfs/repo").get(other)


def test_when_all_fail_all_are_asked_once_more_after_a_pause(
    servers: list[FakeRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    for server in servers:
        server.say(PATH, Answer(500), Answer(500))
    pauses: list[float] = []
    store = store_of(*servers, retries=3, first_pause_seconds=2, longest_pause_seconds=3)
    store._sleep = pauses.append
    assert get(store) == BODY
    assert pauses == [1.5, 2.25]
    assert [len(server.seen) for server in servers] == [3, 2]


def test_the_error_of_a_failure_names_server_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StoreUnavailable, match=r"127.0.0.1:1/cvmfs/repo: connection refused"):
        store_of(f"{NOWHERE}/cvmfs/repo").read_file(".cvmfspublished")


def test_what_is_damaged_everywhere_is_told_as_damage(
    servers: list[FakeRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    for server in servers:
        server.say_always(PATH, DAMAGED)
    with pytest.raises(Damage):
        get(store_of(*servers))


def test_redirects_are_followed_where_they_are_wanted(servers: list[FakeRegistry]) -> None:
    one, two = servers
    one.say_always(PATH, Answer(302, headers={"Location": f"{two.url}{PATH}"}))
    assert get(store_of(one, follow_redirects=True)) == BODY


def test_a_server_that_drips_is_given_up(servers: list[FakeRegistry], caplog: pytest.LogCaptureFixture) -> None:
    with dripping(0.05) as url:
        store = store_of(f"{url}/cvmfs/repo", servers[0], slowest_bytes_per_second=1000, **IMPATIENT)
        began = time.monotonic()
        assert get(store) == BODY
        assert time.monotonic() - began < 120


def test_no_question_takes_longer_than_its_deadline_whatever_the_server_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with dripping(0.05) as url:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store_of(f"{url}/cvmfs/repo", slowest_bytes_per_second=0, deadline_seconds=0.7, retries=9).get(NAME)
        assert 0.6 < time.monotonic() - began < 120


@contextmanager
def dripping(seconds: float) -> Iterator[str]:
    """A server whose answer never ends: a byte now and then."""
    done = threading.Event()

    def serve(listening: socket.socket) -> None:
        while not done.is_set():
            with suppress(OSError), listening.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                while not done.wait(seconds):
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


# --- proxies -------------------------------------------------------------------------------


def test_a_proxy_is_used_and_the_server_never_asked_directly(servers: list[FakeRegistry], proxy: FakeRegistry) -> None:
    store = store_of(servers[0], proxies=[[proxy]])
    assert [get(store), get(store)] == [BODY, BODY]
    assert [seen.target for seen in proxy.seen] == [f"{servers[0].url}{PATH}"] * 2
    assert len(servers[0].seen) == 2


def test_a_proxys_user_and_password_are_for_it_alone(servers: list[FakeRegistry], proxy: FakeRegistry) -> None:
    url = proxy.url.replace("http://", "http://me:s%3Acret@")
    get(store_of(servers[0], proxies=[[url]]))
    assert proxy.seen[0].headers["Proxy-Authorization"] == "Basic bWU6czpjcmV0"
    assert "Proxy-Authorization" not in servers[0].seen[0].headers


def test_members_then_groups_then_fallbacks_are_asked(
    servers: list[FakeRegistry], proxy: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(servers[0], proxies=[[NOWHERE, "http://127.0.0.1:2"], [proxy], [DIRECT]])
    assert get(store) == BODY
    assert store.present_route() == (proxy.url, f"{servers[0].url}/cvmfs/repo")
    proxy.close()
    proxy_seen = len(proxy.seen)
    assert get(store_of(servers[0], proxies=[[proxy], [DIRECT]])) == BODY
    assert len(proxy.seen) == proxy_seen


@pytest.mark.parametrize("fault", ["web page", "way to a web page", "silent", "cut off", "damaged", "broken"])
def test_what_is_the_proxys_fault_is_not_held_against_the_servers(
    fault: str, servers: list[FakeRegistry], proxy: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    proxy._script.clear()
    proxy.say_always(PATH, FAULTS[fault])
    store = store_of(*servers, proxies=[[proxy], [DIRECT]], **patience(fault))
    assert get(store) == BODY
    assert store.present_route() == (DIRECT, f"{servers[0].url}/cvmfs/repo")
    asked = len(proxy.seen)
    assert get(store) == BODY
    assert len(proxy.seen) == asked


@pytest.mark.parametrize("status", [407, 403])
def test_a_proxy_that_refuses_is_passed_over(
    status: int, servers: list[FakeRegistry], proxy: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    proxy._script.clear()
    proxy.say_always(PATH, Answer(status, headers={"X-Squid-Error": "ERR_ACCESS_DENIED 0"}))
    store = store_of(servers[0], proxies=[[proxy], [DIRECT]])
    assert get(store) == BODY
    assert store.present_route()[0] == DIRECT


@pytest.mark.parametrize("fault", ["dead", "silent", "web page", "broken", "damaged"])
def test_what_is_a_servers_fault_is_not_held_against_the_proxy(
    fault: str, servers: list[FakeRegistry], proxy: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = servers
    if fault == "dead":
        one.close()
    else:
        one.say_always(PATH, FAULTS[fault])
    store = store_of(one, two, proxies=[[proxy], [DIRECT]], **patience(fault))
    assert get(store) == BODY
    assert store.present_route() == (proxy.url, f"{two.url}/cvmfs/repo")


def test_a_proxy_from_which_no_server_can_be_reached_is_passed_over(
    servers: list[FakeRegistry], proxy: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    proxy._script.clear()
    proxy.say_always(PATH, Answer(503, headers={"X-Squid-Error": "ERR_CONNECT_FAIL 101"}))
    store = store_of(*servers, proxies=[[proxy], [DIRECT]])
    assert get(store) == BODY
    assert store.present_route()[0] == DIRECT


def test_a_poisoned_cache_is_asked_to_fetch_anew(servers: list[FakeRegistry], proxy: FakeRegistry) -> None:
    def poisoned(seen: Seen) -> Answer:
        return forward(seen) if seen.headers.get("Cache-Control") == "no-cache" else DAMAGED

    proxy._script.clear()
    proxy.say_always(PATH, poisoned)
    store = store_of(servers[0], proxies=[[proxy]])
    assert get(store) == BODY
    assert servers[0].seen[0].headers["Cache-Control"] == "no-cache"


# --- connections ---------------------------------------------------------------------------


def test_connections_are_kept_and_replaced_when_the_server_closed_them(servers: list[FakeRegistry]) -> None:
    store = store_of(servers[0])
    for _ in range(3):
        assert get(store) == BODY
    connections = store._connections._local.connections
    assert len(connections) == 1
    connection = next(iter(connections.values()))
    connection.sock.shutdown(socket.SHUT_RDWR)
    assert get(store) == BODY


def test_traffic_is_counted(servers: list[FakeRegistry], caplog: pytest.LogCaptureFixture) -> None:
    servers[0].say(PATH, Answer(500))
    store = store_of(*servers)
    get(store)
    traffic = store.traffic
    assert (traffic.requests, traffic.received_bytes, traffic.failures) == (2, len(BODY), 1)
    assert not traffic.problem


# --- distances -------------------------------------------------------------------------------


@pytest.fixture
def geo(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a server is asked for the order of two on this machine."""
    monkeypatch.setattr("ducc.client.network.store.secrets.token_hex", lambda size: "me")
    return "/cvmfs/repo/api/v1.0/geo/me/127.0.0.1,127.0.0.1"


def test_the_nearest_server_is_asked_first(servers: list[FakeRegistry], geo: str) -> None:
    for server in servers:
        server.say_always(geo, Answer(200, b"2,1\n"))
    store = store_of(*servers, by_distance=True)
    assert [get(store) for _ in range(3)] == [BODY] * 3
    assert [server.asked().count(PATH) for server in servers] == [0, 3]
    assert sum(server.asked().count(geo) for server in servers) == 1
    near = store_of(*servers, by_distance=True, most_hosts=1)
    get(near)
    assert near.hosts.all == (f"{servers[1].url}/cvmfs/repo",)
    assert store_of(*servers, most_hosts=1).hosts.all == (f"{servers[0].url}/cvmfs/repo",)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404),
        PAGE,
        *(Answer(200, body) for body in (b"", b"1\n", b"1,1\n", b"0,1\n", b"1,2,3\n", b"2;1\n", b"\xff")),
    ],
)
def test_without_a_proper_answer_the_order_stays(
    answer: Answer, servers: list[FakeRegistry], geo: str, caplog: pytest.LogCaptureFixture
) -> None:
    for server in servers:
        server.say_always(geo, answer)
    assert get(store_of(*servers, by_distance=True)) == BODY
    assert [server.asked().count(PATH) for server in servers] == [1, 0]
    assert "keeping the order" in caplog.text
    caplog.clear()


def test_behind_a_proxy_the_distance_from_there_counts(servers: list[FakeRegistry], proxy: FakeRegistry) -> None:
    path = "/cvmfs/repo/api/v1.0/geo/127.0.0.1/127.0.0.1,127.0.0.1"
    proxy.say_always(path, Answer(200, b"2,1\n"))
    store = store_of(*servers, proxies=((proxy,),), by_distance=True)
    assert get(store) == BODY
    assert [server.asked().count(PATH) for server in servers] == [0, 1]


def test_other_servers_know_the_distance_when_one_is_dead(servers: list[FakeRegistry], geo: str) -> None:
    for server in servers:
        server.say_always("/cvmfs/repo/api/v1.0/geo/me/127.0.0.1,127.0.0.1,127.0.0.1", Answer(200, b"3,2,1\n"))
    for _ in range(4):  # the order in which they are asked for it is random
        store = store_of(NOWHERE, *servers, by_distance=True)
        assert get(store) == BODY
        assert store.hosts.all[0].startswith(servers[1].url)
