"""A registry that fails at random, in every way it can, for some time: what comes is right, or an error with a name.

An hour of it, scaled down: pauses take a fraction of their time.
"""

import collections
import gc
import logging
import os
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
from ducc.reach import Reach
from ducc.registry.area import Area
from ducc.registry.client import Registry
from ducc.registry.manners import Manners
from ducc.registry.settings import AreaSettings, Budget, RegistriesSettings
from ducc.registry.settingsfile import read_settings
from ducc.transport import LONGEST_PAUSE_SECONDS, Transport
from tests.fakes.faulty_registry import ABSURD, CANARIES, FAULTS, IMAGES, PASSWORD, USER, FaultyRegistry, image
from tests.fakes.registry import FakeRegistry

SECONDS = float(os.environ.get("DUCC_TEST_FAULT_SECONDS", "20"))
LONGEST_SECONDS = 120  # on a machine on which little happens in that time
WORKERS = 4
HASTE = 500  # pauses are shorter by so much
MEMORY_LEEWAY, DESCRIPTOR_LEEWAY = 24 << 20, 12
SETTLED = 0.4  # of the time: what is allocated once has been allocated by then

log = logging.getLogger(__name__)


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry(seed=4, after=ABSURD, window_seconds=6 * 3600)
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
    reach = Reach(connect_seconds=5, first_byte_seconds=1, idle_seconds=1)
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
    registry.resolve(reference)  # by its tag: what a digest names is not asked for twice
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

    def seen_enough() -> bool:
        all_tried = {fault.__name__ for fault in FAULTS} <= set(server.faults)
        return all_tried and outcomes.right > IMAGES and len(outcomes.errors) > 5

    with ThreadPoolExecutor(WORKERS) as pool:
        while (passed := time.monotonic() - started) < SECONDS or (not seen_enough() and passed < LONGEST_SECONDS):
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

    assert seen_enough(), (server.faults, outcomes.right, outcomes.errors)
    assert not outcomes.long
    assert descriptors - settled[1] <= DESCRIPTOR_LEEWAY
    assert memory - settled[0] <= MEMORY_LEEWAY
    for said in (*outcomes.said, *words, *capfd.readouterr(), repr(client.limits()), repr(client.__dict__)):
        assert not [canary for canary in CANARIES if canary in said], said

    server.failing = False
    time.sleep(2 * LONGEST_PAUSE_SECONDS / HASTE)
    for number in range(IMAGES):
        pull(client, server, number)
