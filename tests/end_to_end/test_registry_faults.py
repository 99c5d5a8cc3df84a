"""A registry that fails at random, in every way it can, for some time: what comes is right, or an error with a name.

An hour of it, scaled down: pauses take a fraction of their time. The dice are seeded, so the faults are the same ones
each time, though not their order, since several threads pull. Canaries stand wherever a secret may stand.
"""

import base64
import collections
import gc
import json
import logging
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ducc.errors import DuccError
from ducc.image.reference import Reference
from ducc.layer.stream import VerifiedStream
from ducc.registry.area import Area
from ducc.registry.client import Registry
from ducc.registry.manners import Manners
from ducc.registry.settings import AreaSettings, Budget, RegistriesSettings, read_settings
from ducc.transport import LONGEST_PAUSE_SECONDS, Reach, Transport
from tests import builders
from tests.builders import Image, Index, Layer, file
from tests.fakes.registry import Answer, FakeRegistry, Seen

SECONDS = float(os.environ.get("DUCC_TEST_FAULT_SECONDS", "20"))
IMAGES, WORKERS = 30, 4
HASTE = 500  # pauses are shorter by so much
FAULTY = 0.15  # of all answers
MEMORY_LEEWAY, DESCRIPTOR_LEEWAY = 24 << 20, 12
SETTLED = 0.4  # of the time: what is allocated once has been allocated by then

CANARY = "c4nary"
USER, PASSWORD = f"{CANARY}-user", f"{CANARY}-password"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
CANARIES = (CANARY, BASIC, PASSWORD.encode().hex())

log = logging.getLogger(__name__)


def image(number: int) -> Image | Index:
    layers = [
        Layer.of(file("base", b"base" * 3000)),
        Layer.of(file(f"{number}", random.Random(number).randbytes(9000))),
    ]
    amd64 = Image(layers, {"Cmd": [f"{number}"]})
    arm64 = Image(layers[:1], {"Cmd": [f"{number}"]}, platform={"os": "linux", "architecture": "arm64"})
    return Index([amd64, arm64]) if number % 3 == 0 else amd64


class FaultyRegistry(FakeRegistry):
    """Lets in who has a fresh token, and then does what it is asked or something else."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seen = collections.deque(maxlen=10)  # type: ignore[assignment]
        self.failing = True
        self.faults: collections.Counter[str] = collections.Counter()
        self._dice, self._guard = random.Random(seed), threading.Lock()
        self._token = 0

    def answer(self, seen: Seen) -> Answer:
        with self._guard:
            roll, fault = self._dice.random(), self._dice.choice(FAULTS)
            if seen.path == "/token":
                right = self._new_token(seen)
            elif "/bucket/" in seen.path:
                right = super().answer(replace(seen, target=seen.path.removeprefix("/bucket")))
            elif seen.headers.get("Authorization") != f"Bearer {CANARY}-token-{self._token}":
                return Answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{self.url}/token",service="s"'})
            else:
                right = super().answer(seen)
                right = replace(right, headers={**right.headers, **limits(76)})
            if not self.failing or roll > FAULTY:
                return right
            self.faults[fault.__name__] += 1
            return fault(self, seen, right)

    def forget_tokens(self) -> None:
        """No token that was given out is good from now on."""
        self._token += 1

    def _new_token(self, seen: Seen) -> Answer:
        if seen.headers.get("Authorization") != f"Basic {BASIC}":
            return Answer(401, b"{}")
        return Answer(200, json.dumps({"token": f"{CANARY}-token-{self._token}"}).encode())


def limits(remaining: int) -> dict[str, str]:
    return {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": f"{remaining};w=21600"}


Fault = Callable[[FaultyRegistry, Seen, Answer], Answer]


def busy(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    said = ("", "1", "0", "-5", "1000000000", "soon", "Fri, 15 Jan 2100 08:00:00 GMT", "Fri, 15 Jan 1999 08:00:00 GMT")
    after = said[registry.faults["busy"] % len(said)]
    return Answer((429, 503)[registry.faults["busy"] % 2], b"{}", {"Retry-After": after} if after else {})


def broken(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return Answer((500, 502, 504)[registry.faults["broken"] % 3], CANARY.encode())


def refused(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return Answer((400, 403, 404, 410, 451)[registry.faults["refused"] % 5], CANARY.encode())


def cut(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, cut_after=len(right.body) // 2, chunked=registry.faults["cut"] % 2 == 0)


def silent(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, silence_seconds=0.5, stall_after=len(right.body) // 3 if seen.method == "GET" else None)


def other_bytes(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, body=right.body[::-1])


def shorter(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, body=right.body[:-1])


def longer(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, body=right.body + b" ", chunked=True)


def compressed(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, headers={**right.headers, "Content-Encoding": "gzip"})


def web_page(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return Answer(200, f"<html>{CANARY}".encode(), {"Content-Type": "text/html"})


def lying_header(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, headers={**right.headers, "Docker-Content-Digest": builders.sha256(b"another")})


def redirected(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    """To where it is, by a URL that is a secret itself."""
    return Answer(307, headers={"Location": f"{registry.url}/bucket{seen.path}?signature={CANARY}-signature"})


def led_away(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    places = (
        f"http://{USER}:{PASSWORD}@127.0.0.1/",
        "file:///etc/passwd",
        f"http://127.0.0.1:1/?a={CANARY}-a",
        seen.target,
    )
    return Answer(302, headers={"Location": places[registry.faults["led_away"] % len(places)]})


def token_gone(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    registry.forget_tokens()
    return Answer(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'})


def bad_challenge(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    challenges = (
        f'Bearer realm="http://169.254.169.254/{CANARY}"',
        'Bearer realm="unterminated',
        "Negotiate",
        f'Bearer realm="{registry.url}/token",scope="repository:other:pull"',
    )
    return Answer(401, b"{}", {"WWW-Authenticate": challenges[registry.faults["bad_challenge"] % len(challenges)]})


def low_limit(registry: FaultyRegistry, seen: Seen, right: Answer) -> Answer:
    return replace(right, headers={**right.headers, **limits(3)})


FAULTS: list[Fault] = [
    busy, broken, refused, cut, silent, other_bytes, shorter, longer, compressed, web_page, lying_header, redirected,
    led_away, token_gone, bad_challenge, low_limit,
]  # fmt: skip


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry(seed=4)
    try:
        for number in range(IMAGES):
            registry.hold_image(image(number), name=f"group/image{number}")
        yield registry
    finally:
        registry.close()


@pytest.fixture
def client(server, tmp_path) -> Registry:
    """As an operator sets it up: by a file, with a password in another."""
    for name, text in (
        ("password", PASSWORD),
        ("registries.yaml", f"credentials: {{x: {{for: '{server.host}', user: {USER}, password_file: password}}}}"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    reach = Reach(connect_seconds=1, first_byte_seconds=0.3, idle_seconds=0.3)
    at = AreaSettings(credentials="x", reach=reach, budget=Budget(requests_per_second=500, downloads=3))
    settings: RegistriesSettings = replace(read_settings(tmp_path / "registries.yaml"), areas={Area(server.host): at})
    manners = Manners(settings, sleep=hasty, clock=lambda: time.monotonic() * HASTE)
    return Registry(Transport(manners=manners, sleep=hasty, attempts=3), settings=settings, manners=manners)


def hasty(seconds: float) -> None:
    assert seconds <= 2 * LONGEST_PAUSE_SECONDS
    time.sleep(seconds / HASTE)


def pull(registry: Registry, server: FakeRegistry, number: int) -> None:
    """Pull one image as a conversion does; what arrives is what was pushed."""
    reference = Reference.parse(server.reference(":tag", f"group/image{number}"))
    planned = registry.manifest_digest(reference)
    expected = image(number)
    for _, found in registry.resolve_platforms(reference, None, planned):
        builds = expected.parts or (expected,)
        build = next(each for each in builds if each.manifest == found.manifest.raw)
        assert found.config.raw == build.config
        for layer, pushed in zip(found.manifest.layers, build.layers, strict=True):
            with registry.open_blob(reference, layer) as blob:
                assert whole(VerifiedStream(blob, layer.digest, layer.size, f"layer {layer.digest}")) == pushed.blob


def whole(stream: VerifiedStream) -> bytes:
    return b"".join(iter(lambda: stream.read(4096), b""))


class Outcomes:
    """What became of every pull, and every word that was said about it."""

    def __init__(self) -> None:
        self.right = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self.said: set[str] = set()
        self.long: set[str] = set()  # texts of errors that are no single line

    def of(self, attempt: Callable[[], None]) -> None:
        try:
            attempt()
        except DuccError as error:
            self.errors[type(error).__name__] += 1
            self.said |= {str(error), repr(error), "".join(traceback.format_exception(error))}
            self.long |= {str(error)} if "\n" in str(error) or len(str(error)) > 1000 else set()
        else:
            self.right += 1


def used() -> tuple[int, int]:
    """Bytes of memory, and open descriptors."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))


def test_every_image_ends_right_or_with_a_name_and_nothing_leaks(client, server, caplog, capfd):
    outcomes, settled = Outcomes(), (0, 0)
    caplog.set_level(logging.DEBUG)
    started, turn = time.monotonic(), 0
    words: set[str] = set()
    with ThreadPoolExecutor(WORKERS) as pool:
        while (passed := time.monotonic() - started) < SECONDS:
            numbers = [(turn * WORKERS + each) % IMAGES for each in range(WORKERS)]
            waiting = [pool.submit(outcomes.of, lambda n=n: pull(client, server, n)) for n in numbers]
            for one in waiting:
                one.result()
            turn += 1
            words |= {record.getMessage() for record in caplog.records}
            caplog.clear()
            if passed > SETTLED * SECONDS and not settled[0]:
                settled = used()
        memory, descriptors = used()
    words |= {record.getMessage() for record in caplog.records}

    assert not {fault.__name__ for fault in FAULTS} - set(server.faults), "a kind of fault that was never tried"
    assert outcomes.right > IMAGES
    assert len(outcomes.errors) > 5
    assert not outcomes.long
    assert descriptors - settled[1] <= DESCRIPTOR_LEEWAY
    assert memory - settled[0] <= MEMORY_LEEWAY
    for said in (*outcomes.said, *words, *capfd.readouterr(), repr(client.limits()), repr(client.__dict__)):
        assert not [canary for canary in CANARIES if canary in said], said

    server.failing = False
    time.sleep(2 * LONGEST_PAUSE_SECONDS / HASTE)
    for number in range(IMAGES):
        pull(client, server, number)
