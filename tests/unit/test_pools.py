"""The proxies that the environment names, and what they are told."""

from collections.abc import Iterator

import pytest

from ducc.transport import RefusedAnswer, Transport
from tests.fakes.registry import Answer, FakeRegistry, fake_registry

ELSEWHERE = "http://nowhere.example/x"


@pytest.fixture
def proxy() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        registry.say_always("/x", Answer(body=b"proxy"))
        yield registry


def names_and_values(proxy: FakeRegistry) -> dict[str, str]:
    (seen,) = proxy.seen
    return {name.lower(): value for name, value in seen.headers.items()}


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("form", ["http://{}", "{}"])
def test_a_proxy_may_be_named_in_any_usual_way(
    proxy: FakeRegistry, monkeypatch: pytest.MonkeyPatch, variable: str, form: str
) -> None:
    monkeypatch.setenv(variable, form.format(proxy.host))
    assert Transport(attempts=1).fetch(ELSEWHERE, limit=10).body == b"proxy"
    assert "proxy-authorization" not in names_and_values(proxy)


def test_a_proxy_is_told_the_user_and_password_that_stand_in_its_name(
    proxy: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@{proxy.host}")
    assert Transport(attempts=1).fetch(ELSEWHERE, limit=10).body == b"proxy"
    told = names_and_values(proxy)
    assert told["proxy-authorization"] == "Basic bWU6cEBzcw=="
    assert "authorization" not in told


@pytest.mark.parametrize("exempt", ["127.0.0.0/8", "example.org,127.0.0.1", "*"])
def test_no_proxy_is_asked_for_what_is_exempt(
    proxy: FakeRegistry, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://nowhere.example:1")
    monkeypatch.setenv("no_proxy", exempt)
    assert Transport(attempts=1).fetch(f"{proxy.url}/x", limit=10).body == b"proxy"


@pytest.mark.parametrize("named", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://"])
def test_a_proxy_of_another_kind_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("http_proxy", named)
    with pytest.raises(RefusedAnswer, match=r"nowhere\.example/x: not a URL"):
        Transport(attempts=1).fetch(ELSEWHERE, limit=10)
