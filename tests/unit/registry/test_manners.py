import threading

import pytest

from ducc.cli.options import open_registry
from ducc.image.reference import Reference
from ducc.registry.area import Area
from ducc.registry.client import Registry
from ducc.registry.manners import FIRST_PAUSE_SECONDS, LimitAlmostReached, Manners, read_limits
from ducc.registry.settings import AreaSettings, Budget, RegistriesSettings
from ducc.transport import LONGEST_PAUSE_SECONDS, TemporaryStatus, Transport
from tests.builders import Image, Layer, file
from tests.fakes.registry import Answer, fake_registry

HOST = ("https", "registry.example.org", 443)
OTHER = ("https", "other.example.org", 443)
NOW = 1_800_000_000.0
IMAGE = Image([Layer.of(file("a", b"x" * 5000))])
MANIFEST = "/v2/some/image/manifests/tag"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


class Standstill(Time):
    """The clock of many threads at once: it does not move while one of them sleeps."""

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def time():
    return Time()


def manners(time: Time, budget: Budget | None = None, registry: str = "registry.example.org") -> Manners:
    settings = RegistriesSettings({Area(registry): AreaSettings(budget=budget or Budget())})
    return Manners(settings, sleep=time.sleep, chance=lambda: 1.0, clock=lambda: time.seconds, now=lambda: NOW)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("7", 7.0),
        ("Fri, 15 Jan 2027 08:00:20 GMT", 20.0),
        ("1000000000", LONGEST_PAUSE_SECONDS),
        ("9" * 400, LONGEST_PAUSE_SECONDS),
        ("-5", FIRST_PAUSE_SECONDS),
        ("0", FIRST_PAUSE_SECONDS),
        ("soon", FIRST_PAUSE_SECONDS),
        ("Fri, 15 Jan 2027 07:59:00 GMT", FIRST_PAUSE_SECONDS),
        ("", FIRST_PAUSE_SECONDS),
    ],
)
def test_what_a_registry_asks_for_holds_for_all_and_for_no_other_registry(time, status, said, waited):
    ours = manners(time)
    ours.heard(HOST, ours.wait(HOST), status, {"Retry-After": said})
    ours.wait(OTHER)
    assert time.slept == []
    ours.wait(HOST)
    assert time.slept == [pytest.approx(waited + FIRST_PAUSE_SECONDS)]


def test_pauses_grow_with_each_refusal_and_end_with_an_answer(time):
    ours = manners(time)
    for _ in range(10):
        ours.heard(HOST, ours.wait(HOST), 429, {})
    assert [pause - FIRST_PAUSE_SECONDS for pause in time.slept[:4]] == pytest.approx([0.5, 1, 2, 4])
    assert time.slept[-1] == LONGEST_PAUSE_SECONDS + FIRST_PAUSE_SECONDS
    ours.heard(HOST, ours.wait(HOST), 200, {})
    ours.heard(HOST, ours.wait(HOST), 429, {})
    ours.wait(HOST)
    assert time.slept[-1] == pytest.approx(2 * FIRST_PAUSE_SECONDS)


def test_many_that_are_refused_together_count_as_one(time):
    ours = manners(time)
    asked = [ours.wait(HOST) for _ in range(16)]
    for asked_at in asked:
        ours.heard(HOST, asked_at, 429, {})
        time.seconds += 0.001
    ours.wait(HOST)
    assert time.slept[0] < 2 * FIRST_PAUSE_SECONDS + 0.1


@pytest.mark.parametrize("status", [404, 403, 410, 500, 502])
def test_other_refusals_close_no_registry(time, status):
    ours = manners(time)
    ours.heard(HOST, ours.wait(HOST), status, {"Retry-After": "50"})
    ours.wait(HOST)
    assert time.slept == []


def test_requests_stay_in_the_budget(time):
    ours = manners(time, Budget(requests_per_second=10))
    for _ in range(41):
        ours.wait(HOST)
    assert sum(time.slept) == pytest.approx(3.0)  # what was not used for a second may be used at once
    ours.wait(OTHER)
    assert sum(time.slept) == pytest.approx(3.0)


def test_bytes_stay_in_the_budget(time):
    counter = manners(time, Budget(bytes_per_second=1000)).counter("registry.example.org")
    for _ in range(61):
        counter.arrived(100)
    assert sum(time.slept) == pytest.approx(5.0)


def test_hosts_without_end_are_not_all_remembered(time, monkeypatch):
    monkeypatch.setattr("ducc.registry.manners.MAX_REGISTRIES", 10)
    ours = manners(time)
    for number in range(100):
        ours.heard(("https", f"cdn{number}.example.org", 443), 0.0, 200, HUB)
    assert len(ours.limits()) <= 10


def test_docker_hub_is_counted_once_under_all_its_names(time):
    ours = manners(time)
    assert ours.counter("docker.io") is ours.counter("registry-1.docker.io")
    assert ours.reach(("https", "registry-1.docker.io", 443)) is not None


HUB = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600", "docker-ratelimit-source": "192.0.2.7"}


def test_the_limits_that_a_registry_tells_are_shown(time):
    ours = manners(time)
    assert ours.limits() == {}
    ours.heard(HOST, ours.wait(HOST), 200, HUB)
    (told,) = ours.limits().items()
    assert told[0] == "registry.example.org"
    assert (told[1].limit, told[1].remaining, told[1].window_seconds, told[1].source) == (100, 76, 21600, "192.0.2.7")


@pytest.mark.parametrize(
    "changes",
    [
        {"RateLimit-Limit": ""},
        {"RateLimit-Limit": "many"},
        {"RateLimit-Remaining": "-1"},
        {"RateLimit-Remaining": "9" * 400},
        {"RateLimit-Limit": "100;w=soon"},
    ],
)
def test_limits_that_make_no_sense_are_left(changes):
    headers = {**HUB, **changes}
    limits = read_limits(headers, NOW)
    assert limits is None or limits.window_seconds == 21600


@pytest.mark.parametrize(("remaining", "slower"), [(50, False), (11, False), (10, True), (1, True), (0, True)])
def test_requests_that_count_slow_down_before_a_limit_is_reached(time, remaining, slower):
    ours = manners(time)
    ours.heard(HOST, 0.0, 200, {"RateLimit-Limit": "100;w=100", "RateLimit-Remaining": f"{remaining};w=100"})
    for _ in range(3):
        ours.counter("registry.example.org").wait_to_count()
    spread = min(100 / max(remaining, 1), LONGEST_PAUSE_SECONDS)
    assert time.slept == (pytest.approx([spread] * 2) if slower else [])


def test_a_low_limit_is_forgotten_after_its_window(time):
    ours = manners(time)
    ours.heard(HOST, 0.0, 200, {"RateLimit-Limit": "100;w=100", "RateLimit-Remaining": "1;w=100"})
    time.seconds += 101
    for _ in range(3):
        ours.counter("registry.example.org").wait_to_count()
    assert time.slept == []


def test_who_would_wait_long_for_one_of_the_last_requests_is_told_so():
    ours = manners(Standstill())
    ours.heard(HOST, 0.0, 200, {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "2;w=21600"})
    counter = ours.counter("registry.example.org")
    counter.wait_to_count()
    counter.wait_to_count()
    with pytest.raises(LimitAlmostReached, match=r"^registry.example.org: 2 of 100 requests are left") as caught:
        counter.wait_to_count()
    assert caught.value.retryable


# --- with requests -------------------------------------------------------------------------


@pytest.fixture
def server():
    with fake_registry() as registry:
        registry.hold_image(IMAGE)
        yield registry


def client(time: Time, server, budget: Budget | None = None) -> Registry:
    ours = manners(time, budget, server.host)
    transport = Transport(manners=ours, sleep=time.sleep, chance=lambda: 0.0, now=lambda: NOW, attempts=2)
    return Registry(transport, manners=ours)


def test_one_worker_that_is_told_to_wait_makes_the_others_wait(time, server):
    registry = client(time, server)
    server.say(MANIFEST, Answer(429, headers={"Retry-After": "30"}), Answer(429, headers={"Retry-After": "30"}))
    image = Reference.parse(server.reference())
    with pytest.raises(TemporaryStatus):
        registry.manifest_digest(image)
    time.slept.clear()
    registry.manifest_digest(image.with_tag("tag"))
    assert sum(time.slept) == pytest.approx(30, abs=1)


def test_the_limits_of_a_real_answer_are_kept(time, server):
    registry = client(time, server)
    server.say(MANIFEST, Answer(200, b"", {**HUB, "Docker-Content-Digest": "sha256:" + "a" * 64}))
    registry.manifest_digest(Reference.parse(server.reference()))
    assert registry.limits()[server.host].remaining == 76


def test_no_more_downloads_than_allowed_go_on_together(time, server):
    registry = client(time, server, Budget(downloads=2))
    image = Reference.parse(server.reference())
    (layer,) = registry.resolve(image).manifest.layers
    now, most, guard, two = 0, 0, threading.Lock(), threading.Barrier(2, timeout=60)

    def download() -> None:
        nonlocal now, most
        with registry.open_blob(image, layer) as stream:
            with guard:
                now += 1
                most = max(most, now)
            stream.read(10)
            two.wait()
            with guard:
                now -= 1

    threads = [threading.Thread(target=download) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_a_download_that_fails_leaves_its_place_to_others(time, server):
    registry = client(time, server, Budget(downloads=1))
    image = Reference.parse(server.reference())
    (layer,) = registry.resolve(image).manifest.layers
    path = f"/v2/some/image/blobs/{layer.digest}"
    server.say(path, Answer(404), Answer(200, b"short"))
    for _ in range(2):
        with pytest.raises(Exception, match="some/image"), registry.open_blob(image, layer):
            pass
    with registry.open_blob(image, layer) as stream:
        assert len(stream.read(layer.size)) == layer.size


def test_whoever_wants_to_end_can_cut_every_pause_short(server):
    woken: list[float] = []
    registry = Registry.from_settings(RegistriesSettings(), sleep=woken.append)
    server.say_always(MANIFEST, Answer(503, headers={"Retry-After": "50"}))
    with pytest.raises(TemporaryStatus):
        registry.manifest_digest(Reference.parse(server.reference()))
    assert sum(woken) > 200  # all of which took no time


def test_an_operators_files_make_a_registry_from_the_command_line(server, tmp_path, monkeypatch):
    for variable in ("HOME", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "secret").chmod(0o600)
    settings = tmp_path / "registries.yaml"
    settings.write_text(f"credentials: {{x: {{for: '{server.host}', user: me, password_file: secret}}}}")
    server.say(MANIFEST, Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    open_registry(settings).using("x").manifest_digest(Reference.parse(server.reference()))
    assert server.seen[-1].headers["Authorization"] == "Basic bWU6czNjcmV0"
    assert open_registry(None).limits() == {}
