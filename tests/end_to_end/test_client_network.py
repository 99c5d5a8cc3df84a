"""A mount behind a real Squid, and what it survives: a poisoned cache, a dead proxy, dead and lying servers."""

import os
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ducc.cvmfs.objectname import ObjectName
from tests import signing
from tests.end_to_end.squid import Squid, running_squid
from tests.end_to_end.test_client_configuration import Configured, configured, some_files
from tests.end_to_end.test_mount import Site, site
from tests.fakes.registry import Answer, FakeRegistry, fake_registry

__all__ = ["configured", "site"]  # fixtures


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    with running_squid() as running:
        yield running


def everything_below(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def through(configured: Configured, proxies: str, **parameters: object) -> None:
    """Mount with these proxies, and parameters without their prefix."""
    lines = [f"CVMFS_{name}={value}\n" for name, value in {"HTTP_PROXY": f"'{proxies}'", **parameters}.items()]
    (configured.etc / "config.d" / "repo.example.org.local").write_text("".join(lines))
    configured.mount()


def test_a_second_client_costs_the_server_nothing(configured: Configured, squid: Squid) -> None:
    site = configured.site
    files = {b"/f/%d" % number: site.publisher.file(b"%d" % number, b"content %d" % number) for number in range(20)}
    site.publish({**some_files(site), **files}, b"/f")
    seen = []
    before = len(squid.log())
    for number in range(2):
        through(configured, squid.url, CACHE_BASE=site.directory / f"client{number}")
        seen.append(everything_below(site.root))
        site.ducc("umount", site.root)
    assert seen[0] == seen[1]
    ours = [entry for entry in squid.log()[before:] if f":{site.port}/" in entry[1]]
    first, second = ours[: len(ours) // 2], ours[len(ours) // 2 :]
    assert {url for _, url in first} == {url for _, url in second}
    assert set(Counter(url for _, url in first).values()) == {1}
    assert {result for result, _ in first} == {"TCP_MISS"}
    assert {result for result, _ in second} == {"TCP_MEM_HIT"}, second


def test_a_poisoned_cache_is_survived(configured: Configured, squid: Squid) -> None:
    site = configured.site
    files = some_files(site)
    site.publish(files)
    path = site.object_file(files[b"/file"])
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + b"!")
    url = f"http://127.0.0.1:{site.port}/cvmfs/{signing.FQRN}/{path.relative_to(site.repository)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": squid.url}))
    opener.open(url).read()
    path.write_bytes(good)
    assert opener.open(url).read() != good  # that is what it would give to everybody for days
    through(configured, squid.url)
    assert (site.root / "file").read_bytes() == b"content"
    assert opener.open(url).read() == good
    results = [result for result, asked in squid.log() if asked == url]
    poisoning, giving, giving_us, asked_anew = results[:4]
    assert (poisoning, giving, giving_us, asked_anew) == ("TCP_MISS", "TCP_MEM_HIT", "TCP_MEM_HIT", "TCP_MISS")


def test_a_proxy_that_dies_is_passed_over_while_files_are_read(configured: Configured) -> None:
    site = configured.site
    files = {b"/%d" % number: site.publisher.file(b"%d" % number, b"%d" % number) for number in range(10)}
    site.publish(files)
    with running_squid() as mortal:
        through(configured, f"{mortal.url};DIRECT", PROXY_RESET_AFTER=3600)
        assert (site.root / "0").read_bytes() == b"0"
        mortal.kill()
        began = time.monotonic()
        assert [(site.root / str(number)).read_bytes() for number in range(1, 10)] == [b"%d" % n for n in range(1, 10)]
        assert time.monotonic() - began < 60
        status = configured.client("status", site.root)
        assert "through DIRECT" in status
        assert "asking others" in configured.log


def test_a_captive_portal_is_not_taken_for_the_repository(configured: Configured) -> None:
    site = configured.site
    site.publish(some_files(site))
    page = Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
    with fake_registry() as portal:
        portal.answer = lambda seen: page  # type: ignore[method-assign]
        (configured.etc / "config.d" / "repo.example.org.local").write_text(f"CVMFS_HTTP_PROXY={portal.url}\n")
        words = ("mount", signing.FQRN, site.root, "--etc", configured.etc)
        assert "is a login wanted?" in site.ducc(*words, status=30).stderr
        through(configured, f"{portal.url};DIRECT")
        assert (site.root / "file").read_bytes() == b"content"


@pytest.mark.parametrize("fault", ["dead", "silent", "corrupt", "broken"])
def test_the_second_server_takes_over_in_time(fault: str, configured: Configured) -> None:
    site = configured.site
    files = some_files(site)
    site.publish(files)
    with fake_registry() as bad:
        name = ObjectName(files[b"/file"].content or b"")
        _fill(bad, site)
        bad.say_always(f"/cvmfs/{signing.FQRN}/{name.path}", _faulty(fault))
        both = f"'{bad.url}/cvmfs/@fqrn@;http://127.0.0.1:{site.port}/cvmfs/@fqrn@'"
        through(configured, "DIRECT", SERVER_URL=both, TIMEOUT_DIRECT=3)
        assert sorted(os.listdir(site.root)) == ["d", "file"]
        if fault == "dead":
            bad.close()
        began = time.monotonic()
        assert (site.root / "file").read_bytes() == b"content"
        assert (site.root / "d" / "other").read_bytes() == b"other"
        assert time.monotonic() - began < 60


def _fill(server: FakeRegistry, site: Site) -> None:
    """Let another server have the whole repository."""
    for path in site.repository.rglob("*"):
        if path.is_file():
            server.hold(f"/cvmfs/{signing.FQRN}/{path.relative_to(site.repository)}", path.read_bytes())


def _faulty(fault: str) -> Answer:
    return {
        "dead": Answer(500),
        "silent": Answer(200, b"x", silence_seconds=5),
        "corrupt": Answer(200, b"not what was asked for"),
        "broken": Answer(500),
    }[fault]
