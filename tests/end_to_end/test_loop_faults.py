"""The daemon against a registry that fails at random for a while: an hour of it, scaled down.

Whatever the registry does, the daemon stays as small as it was, tells nobody a secret, and publishes nothing wrong;
when the faults are over, every image is granted.
"""

import json
import os
import signal
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.builders import sha256
from tests.end_to_end.daemon import Daemon
from tests.end_to_end.published import repository
from tests.fakes.faulty_registry import CANARIES, CANARY, FAULTS, IMAGES, PASSWORD, USER, FaultyRegistry, image

SECONDS = float(os.environ.get("DUCC_TEST_FAULT_SECONDS", "25"))
HURRY_SECONDS = 1.0  # failing wishes are tried that often, not after their pauses
SETTLED = 0.4  # of the time: what is allocated once has been allocated by then
TAGS = 5  # of the wildcard
MEGABYTES_LEEWAY, DESCRIPTOR_LEEWAY = 24, 12
LONG_SECONDS = 120

SETTINGS = """
credentials: {{x: {{for: '{host}', user: {user}, password_file: password}}}}
registries:
  '{host}':
    credentials: x
    timeouts: {{connect_seconds: 5, first_byte_seconds: 1, idle_seconds: 1}}
"""


@pytest.fixture
def server():
    registry = FaultyRegistry(seed=6)
    try:
        for number in range(IMAGES):
            registry.hold_image(image(number), name=f"group/image{number}")
        for number in range(TAGS):
            registry.hold_image(image(100 + number), f"v{number}", "group/many")
        registry.hold_tags(*(f"v{number}" for number in range(TAGS)), name="group/many")
        yield registry
    finally:
        registry.close()


@contextmanager
def listener():
    """Somebody who is told what happens, and keeps every byte of it; now and then he is not at home."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(500 if len(heard) % 5 == 0 else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://{USER}:{PASSWORD}@127.0.0.1:{server.server_port}/?key={CANARY}-key", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def used(process):
    """Megabytes of memory, and open descriptors."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{process}/fd"))


def everything_in(directory):
    """Every file's bytes, as they are, and inflated if they can be."""
    for path in directory.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield path, data
            try:
                yield path, zlib.decompress(data)
            except zlib.error:
                continue


def test_it_stays_small_and_silent_and_in_the_end_everything_is_granted(server, tmp_path):
    with repository(tmp_path / "made") as made, listener() as (url, heard):
        for name, text in (("password", PASSWORD), ("registries.yaml", SETTINGS.format(host=server.host, user=USER))):
            (made.directory / name).write_text(text)
            (made.directory / name).chmod(0o600)
        single = [server.reference(":tag", f"group/image{number}") for number in range(IMAGES)]
        wishlist = made.wishlist(*single, f"'{server.reference(':*', 'group/many')}'")
        events = made.directory / "events"
        words = ["--registries", made.directory / "registries.yaml", "-n", events, "--notify", url, "-vv"]
        daemon = Daemon(made, wishlist, *words)
        daemon.until(lambda: "ready: " in daemon.output())

        started, settled = time.monotonic(), (0.0, 0)
        while (passed := time.monotonic() - started) < SECONDS or (never_tried(server) and passed < LONG_SECONDS):
            time.sleep(HURRY_SECONDS)
            change_one(server, int(passed))
            daemon.process.send_signal(signal.SIGHUP)
            if passed > SETTLED * SECONDS and not settled[0]:
                settled = used(daemon.process.pid)
        memory, descriptors = used(daemon.process.pid)
        print(f"{settled[0]:.0f} MB, then {memory:.0f} MB; {settled[1]} descriptors, then {descriptors}")
        print(f"revision {made.revision}, {sum(server.faults.values())} faults: {server.faults}")
        assert not never_tried(server), "a kind of fault that was never tried"
        assert memory - settled[0] <= MEGABYTES_LEEWAY
        assert descriptors - settled[1] <= DESCRIPTOR_LEEWAY

        server.failing = False
        every = {*single, *(server.reference(f":v{number}", "group/many") for number in range(TAGS))}
        hurry = Hurry(daemon)
        daemon.until(lambda: hurry() and daemon.statuses() == dict.fromkeys(every, "granted"), LONG_SECONDS)
        daemon.until(
            lambda: hurry() and configs(made) == {name: expected(server, name) for name in every}, LONG_SECONDS
        )
        shown = made.ducc("status", made.fqrn, *made.where, "--state", daemon.state, "--json")
        assert daemon.stop()[0] == 0
        assert "no problems found" in made.check()

        assert all(json.loads(line)["action"] for line in events.read_text().splitlines())
        assert heard
        assert "Traceback" not in daemon.output()
        said = [("log", daemon.log.read_bytes()), ("events", events.read_bytes()), ("status", shown.stdout.encode())]
        said += [("notification", body) for body in heard]
        places = (made.root, daemon.state)
        for place, data in (*said, *(found for directory in places for found in everything_in(directory))):
            assert not [canary for canary in CANARIES if canary.encode() in data], place


def never_tried(server):
    return {fault.__name__ for fault in FAULTS} - set(server.faults)


class Hurry:
    """Lets failing wishes be tried every few seconds: on a busy machine an answer may take too long once more."""

    def __init__(self, daemon):
        self._daemon, self._since = daemon, float("-inf")

    def __call__(self):
        if time.monotonic() - self._since > 5:
            self._since = time.monotonic()
            self._daemon.process.send_signal(signal.SIGHUP)
        return True


def change_one(server, turn):
    """Let a tag move, so that there is always something to do."""
    server.hold_image(image(1000 + turn), name=f"group/image{turn % IMAGES}")


def expected(server, name):
    """The digest of the config that an image of the registry has on the usual processor."""
    path = name.removeprefix(f"{server.url}/")
    held = server.content[f"/v2/{path.replace(':', '/manifests/')}"].body
    manifest = json.loads(held)
    while "manifests" in manifest:
        digest = manifest["manifests"][0]["digest"]
        held = server.content[f"/v2/{path.partition(':')[0]}/manifests/{digest}"].body
        assert sha256(held) == digest
        manifest = json.loads(held)
    return manifest["config"]["digest"]


def configs(made):
    return {one["image"]: one["config_digest"] for one in made.images()}
