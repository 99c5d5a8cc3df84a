"""The daemon against a real registry: what it publishes, what it leaves alone, and how it ends."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shlex import quote

import pytest
import requests

from ducc.daemon.schedule import SMALL_BYTES
from tests.builders import Image, Layer, file, push, sha256
from tests.console import SCRIPT, SYSTEM_PATH
from tests.end_to_end.daemon import PATIENCE_SECONDS, Daemon
from tests.end_to_end.published import repository
from tests.fakes.registry import Answer, fake_registry
from tests.needs import need_root
from tests.registry import running_registry

SEED = 20261121
IDLE_MEGABYTES = 90


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A registry of this file's own, so that requests can be counted."""
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def made(tmp_path):
    with repository(tmp_path / "made") as made:
        yield made


def image(number, size=1000):
    data = random.Random(f"{SEED} {number}").randbytes(size)
    return Image([Layer.of(file("common", b"the same in all")), Layer.of(file(f"etc/{number}", data))])


def push_some(shelf, name, numbers):
    return [push(shelf.host, name, f"v{number}", image(f"{name}{number}")) for number in numbers]


def wish(shelf, name, tag):
    return f"http://{shelf.host}/{name}:{tag}"


def quoted(*wishes):
    return [f"'{one}'" for one in wishes]


def names(made):
    return sorted(one["image"] for one in made.images())


def heads(shelf, name):
    return [one for one in shelf.requests() if one.method == "HEAD" and f"/v2/{name}/manifests/" in one.path]


def test_wildcards_are_granted_and_without_changes_there_is_no_revision_and_no_blob(shelf, made):
    push_some(shelf, "still", range(5))
    push(shelf.host, "still", "other", image("other"))
    daemon = Daemon(made, made.wishlist(*quoted(wish(shelf, "still", "v*"))))
    wishes = [wish(shelf, "still", f"v{number}") for number in range(5)]
    daemon.until_granted(*wishes)
    assert names(made) == wishes
    revision, blobs, rounds = made.revision, len(shelf.blob_fetches()), len(heads(shelf, "still"))
    daemon.until(lambda: len(heads(shelf, "still")) >= rounds + 15)  # three rounds more
    assert (made.revision, len(shelf.blob_fetches())) == (revision, blobs)
    assert daemon.stop()[0] == 0
    assert "Traceback" not in daemon.output()
    assert "no problems found" in made.check()


def test_of_changed_tags_only_those_are_fetched(shelf, made):
    push_some(shelf, "moving", range(6))
    daemon = Daemon(made, made.wishlist(*quoted(wish(shelf, "moving", "*"))))
    daemon.until_granted(*(wish(shelf, "moving", f"v{number}") for number in range(6)))
    before = len(shelf.blob_fetches())
    changed = [push(shelf.host, "moving", f"v{number}", image(f"changed {number}")) for number in (2, 4)]
    push(shelf.host, "moving", "v6", image("new"))
    daemon.until(lambda: len(daemon.statuses()) == 7 and set(daemon.statuses().values()) == {"granted"})
    daemon.until(lambda: {one["config_digest"] for one in made.images()} >= configs("changed 2", "changed 4", "new"))
    fetched = {one.path.rpartition("/")[2] for one in shelf.blob_fetches()[before:]}
    known = {f"sha256:{digest}" for number in range(6) for digest in blobs_of(f"moving{number}")}
    assert fetched.isdisjoint(known)
    assert len(changed) == 2


def configs(*numbers):
    return {sha256(image(number).config) for number in numbers}


def blobs_of(number):
    return [sha256(blob).removeprefix("sha256:") for blob in image(number).blobs]


def test_one_wish_that_fails_stops_no_other_and_is_granted_when_it_can_be(shelf, made):
    push_some(shelf, "partly", range(2))
    missing = wish(shelf, "partly", "later")
    wishes = [wish(shelf, "partly", f"v{number}") for number in range(2)]
    daemon = Daemon(made, made.wishlist(*wishes, missing))
    daemon.until(lambda: daemon.statuses() == {**dict.fromkeys(wishes, "granted"), missing: "failing"})
    push(shelf.host, "partly", "later", image("later"))
    daemon.until_granted(*wishes, missing)
    assert daemon.output().count("wish fails") == 1


def test_killed_at_any_moment_it_goes_on_and_publishes_nothing_twice(shelf, made):
    push_some(shelf, "killed", range(8))
    wishlist = made.wishlist(*quoted(wish(shelf, "killed", "*")))
    dice = random.Random(SEED)
    for _ in range(6):
        daemon = Daemon(made, wishlist)
        time.sleep(dice.uniform(0.5, 2.5))
        daemon.process.kill()
        daemon.process.wait()
    daemon = Daemon(made, wishlist)
    wishes = [wish(shelf, "killed", f"v{number}") for number in range(8)]
    daemon.until_granted(*wishes)
    revision = made.revision
    assert names(made) == wishes
    assert daemon.stop()[0] == 0
    again = Daemon(made, wishlist, state="another")  # the state is a cache
    again.until_granted(*wishes)
    assert made.revision == revision
    assert "no problems found" in made.check()


@contextmanager
def slow_registry(upstream, seconds_a_chunk=0.2):
    """The registry behind it, with blobs as slow as that for 64 KB."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            reply = requests.request(self.command, f"{upstream}{self.path}", headers=headers, timeout=60)
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            for at in range(0, len(reply.content) if self.command == "GET" else 0, 65536):
                if "/blobs/" in self.path and len(reply.content) > 65536:
                    time.sleep(seconds_a_chunk)
                try:
                    self.wfile.write(reply.content[at : at + 65536])
                except OSError:
                    return

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_big_pull_ends_it_long_before_the_pull_and_the_rest_is_fetched_later(
    shelf, made, number
):
    push(shelf.host, "big", "1", image("big", 20 << 20))
    with slow_registry(shelf.url, seconds_a_chunk=0.4) as host:  # two minutes for all of it
        slow = f"http://{host}/big:1"
        daemon = Daemon(made, made.wishlist(slow))
        spool = made.directory / "publisher" / made.fqrn / "blobs"
        daemon.until(lambda: spool.exists() and any(one.stat().st_size > 100_000 for one in spool.iterdir()))
        status, seconds = daemon.stop(number)
        assert (status, seconds < 60) == (0, True), (status, seconds, daemon.output())
        assert made.revision == 1
        assert any(one.stat().st_size > 100_000 for one in spool.iterdir())  # what came is kept
    assert "no problems found" in made.check()


def test_a_small_new_image_does_not_wait_behind_a_big_one(shelf, made):
    data = random.Random(SEED).randbytes(1 << 20) * (SMALL_BYTES // (1 << 20) + 1)
    push(shelf.host, "huge", "1", Image([Layer.of(file("huge", data), compression="none")]))
    push(shelf.host, "tiny", "1", image("tiny"))
    with slow_registry(shelf.url) as host:
        huge, tiny = f"http://{host}/huge:1", wish(shelf, "tiny", "1")
        daemon = Daemon(made, made.wishlist(huge, tiny))
        daemon.until(lambda: daemon.statuses() == {huge: "pending", tiny: "granted"})
        assert names(made) == [tiny]
        assert daemon.stop()[1] < 60


def test_sighup_reloads_at_once_and_a_bad_list_leaves_the_last_good_one(shelf, made):
    push_some(shelf, "reload", range(2))
    wishlist = made.wishlist(wish(shelf, "reload", "v0"))
    good = wishlist.read_text()
    daemon = Daemon(made, wishlist, "--interval", "1h")
    daemon.until_granted(wish(shelf, "reload", "v0"))
    wishlist.write_text(good + "input: twice\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: "the last good one counts" in daemon.output())
    assert daemon.statuses() == {wish(shelf, "reload", "v0"): "granted"}
    wishlist.write_text(good + f"  - {wish(shelf, 'reload', 'v1')}\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until_granted(wish(shelf, "reload", "v0"), wish(shelf, "reload", "v1"))
    assert daemon.stop()[0] == 0


def test_a_hang_up_while_it_reads_its_lists_for_the_first_time_ends_nothing(shelf, made):
    push_some(shelf, "early", range(1))
    text = made.wishlist(wish(shelf, "early", "v0")).read_bytes()
    with fake_registry() as server:
        server.hold("/list.yaml", text)
        server.say("/list.yaml", Answer(200, text, silence_seconds=2))
        daemon = Daemon(made, f"{server.url}/list.yaml")
        daemon.until(lambda: server.seen)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until_granted(wish(shelf, "early", "v0"))
        assert daemon.stop()[0] == 0


def test_a_second_daemon_is_refused_until_the_first_has_gone(shelf, made):
    push_some(shelf, "claimed", range(1))
    wishlist = made.wishlist(wish(shelf, "claimed", "v0"))
    daemon = Daemon(made, wishlist)
    daemon.until_granted(wish(shelf, "claimed", "v0"))
    second = made.ducc("loop", wishlist, *made.publisher, "--state", made.directory / "other", status=34)
    assert f"process {daemon.process.pid} on" in second.stderr
    assert "Traceback" not in second.stderr
    daemon.process.kill()
    daemon.process.wait()
    third = Daemon(made, wishlist)
    third.until(lambda: "ready:" in third.output())


@pytest.mark.parametrize(
    ("text", "status"),
    [("version: 1\ninput: [", 2), (None, 2), ("version: 1\ncvmfs_repo: none.ducc.test\ninput: []\n", 2)],
)
def test_what_can_not_work_is_said_in_one_line(made, text, status):
    wishlist = made.directory / "bad.yaml"
    if text is not None:
        wishlist.write_text(text)
    done = made.ducc("loop", wishlist, *made.publisher, "--state", made.directory / "state", status=status)
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("ducc: ")]) == 1


def test_systemd_and_whoever_reads_notifications_hear_what_happens(shelf, made, tmp_path):
    push_some(shelf, "told", range(1))
    events = tmp_path / "events"
    heard = []
    with manager_at(tmp_path / "notify", heard):
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        words = ["-n", events, "--log-format", "json"]
        daemon = Daemon(made, made.wishlist(wish(shelf, "told", "v0")), *words, **environment)
        daemon.until_granted(wish(shelf, "told", "v0"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: any(one.startswith("READY=1") for one in heard[1:]))
        daemon.stop()
    assert heard[0].startswith("READY=1\nSTATUS=")
    assert "WATCHDOG=1" in heard
    assert any(one.startswith("RELOADING=1\nMONOTONIC_USEC=") for one in heard)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    actions = [one["action"] for one in told]
    assert (actions[0], actions[-1]) == ("start_ducc", "end_ducc")
    assert {"start_flat_conversion", "publish_flat_image", "end_flat_conversion", "end_layer_conversion"} <= {*actions}
    assert all(json.loads(line)["message"] for line in daemon.output().splitlines())


@contextmanager
def manager_at(path, heard):
    """Hears all that it is told until it is told of the end: whoever tells it does not wait for long."""

    def hear():
        while not (heard and heard[-1].startswith("STOPPING=1")):
            heard.append(listening.recv(4096).decode())

    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(path))
        listening.settimeout(PATIENCE_SECONDS)
        thread = threading.Thread(target=hear)
        thread.start()
        yield
        thread.join()


def test_status_tells_of_each_wish_with_the_daemon_after_it_and_without_its_state(shelf, made):
    push_some(shelf, "shown", range(2))
    granted, leaving, failing = (wish(shelf, "shown", tag) for tag in ("v0", "v1", "missing"))
    wishlist = made.wishlist(granted, leaving, failing)
    daemon = Daemon(made, wishlist)
    daemon.until(lambda: daemon.statuses() == {granted: "granted", leaving: "granted", failing: "failing"})
    wishlist.write_text("\n".join(line for line in wishlist.read_text().splitlines() if leaving not in line))
    daemon.until(lambda: daemon.statuses().keys() == {granted, failing})
    for state in (daemon.state, daemon.state):
        shown = {one["image"]: one for one in status(made, state)["images"]}
        assert {image: one["status"] for image, one in shown.items()} == {
            granted: "granted", leaving: "left", failing: "failing",
        }  # fmt: skip
        assert (shown[failing]["kind"], shown[failing]["attempts"] > 0) == ("NoSuchImage", True)
        assert shown[failing]["next_try"] > shown[failing]["since"]
        assert shown[granted]["checked_at"] >= shown[granted]["published_at"]
        if daemon.process.poll() is None:
            daemon.stop()
    without = status(made, made.directory / "no state")
    assert {one["image"]: one["status"] for one in without["images"]} == {granted: "published", leaving: "published"}
    text = made.ducc("status", made.fqrn, *made.where, "--state", daemon.state).stdout
    assert "1 failing, 1 granted, 1 left" in text
    assert made.ducc("status", made.fqrn, *made.where, "--state", daemon.state, "--failing").stdout.count(failing) == 1


def status(made, state):
    return made.ducc("status", made.fqrn, *made.where, "--state", state, "--json").json


def test_no_credential_is_in_any_output(shelf, made, tmp_path):
    canary = "canary-7f3a"
    refused = f"http://user:{canary}@{shelf.host}/x:1"
    daemon = Daemon(
        made,
        made.wishlist(refused, wish(shelf, "nowhere", "1")),
        "-n", tmp_path / "events", "--notify", f"http://user:{canary}@127.0.0.1:9/{'x'}?token={canary}", "-vv",
        DUCC_AUTH_REGISTRIES="R", DUCC_R_IDENT=shelf.host, DUCC_R_USER="someone", DUCC_R_PASS=canary,
    )  # fmt: skip
    daemon.until(lambda: len(daemon.statuses()) == 2)
    daemon.stop()
    shown = made.ducc("status", made.fqrn, *made.where, "--state", daemon.state, "--json")
    outputs = [daemon.output(), (tmp_path / "events").read_text(), shown.stdout, shown.stderr]
    assert not any(canary in text for text in outputs)
    assert canary.encode() not in (daemon.state / f"{made.fqrn}.sqlite").read_bytes()


NOBODY = 65534
PROJECT = Path(__file__).parents[2]
AS_NOBODY = [
    "setpriv", "--pdeathsig", "KILL", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
    "--bounding-set=-all", "--inh-caps=-all",
]  # fmt: skip


def for_nobody(tmp_path):
    """Words that run a command as the user nobody, in whose view interpreter and project can be reached."""
    ways = {}  # to what lies below a directory that nobody may enter: that directory
    for tree in map(Path, (sys.base_prefix, sys.prefix, PROJECT)):
        if closed := [path for path in reversed(tree.parents) if not path.stat().st_mode & 0o001]:
            ways[tree] = closed[0]
    if not ways:
        return AS_NOBODY
    copies = {tree: tmp_path / f"way-{number}" for number, tree in enumerate(ways)}
    for copy in copies.values():
        copy.mkdir()
    steps = [f"mount --bind {quote(str(tree))} {quote(str(copy))}" for tree, copy in copies.items()]
    steps += [f"mount -t tmpfs -o mode=755 none {quote(str(closed))}" for closed in dict.fromkeys(ways.values())]
    for tree, copy in copies.items():
        steps += [f"mkdir -p {quote(str(tree))}", f"mount --bind {quote(str(copy))} {quote(str(tree))}"]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh", *AS_NOBODY]


def give_to_nobody(directory):
    for path in [*directory.rglob("*"), directory]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for path in directory.parents:
        if path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o001)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_an_unprivileged_user_without_home_locale_or_input_can_run_it(shelf, made, umask, tmp_path):
    """B98, as the user nobody: no HOME, LANG=C, closed stdin, few descriptors, proxies set, any umask."""
    need_root()
    push_some(shelf, "plain", range(3))
    wishes = [wish(shelf, "plain", f"v{number}") for number in range(3)]
    wishlist = made.wishlist(*wishes)
    give_to_nobody(made.directory)
    started = time.time()
    log = tmp_path / "log"
    command = [
        *for_nobody(tmp_path), "sh", "-c", f'umask {umask:03o}; ulimit -n 256; exec "$@" <&-', "sh", SCRIPT, "loop",
        wishlist, *made.publisher, "--interval", "1s", "--state", made.directory / "state",
    ]  # fmt: skip
    environment = {"PATH": SYSTEM_PATH, "LANG": "C", "http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd="/", env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while made.revision == 1 or names(made) != wishes:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert privileges(process.pid) == {"Uid": f"{NOBODY}", "CapEff": "0" * 16, "CapBnd": "0" * 16}
    finally:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
    new = [path for path in made.directory.rglob("*") if not path.is_symlink() and path.stat().st_ctime >= started]
    assert new
    assert [path for path in new if path.stat().st_mode & 0o022] == []
    assert "no problems found" in made.check()


def privileges(process):
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {name: lines[name].split()[-1] for name in ("Uid", "CapEff", "CapBnd")}


def test_it_is_small_when_it_has_nothing_to_do(shelf, made):
    number = 300
    layer = Layer.of(file("common", b"the same in all"))
    for one in range(number):
        push(shelf.host, "many", f"v{one}", Image([layer], {"Env": [f"NUMBER={one}"]}))
    daemon = Daemon(made, made.wishlist(*quoted(wish(shelf, "many", "*"))), "--interval", "1h")
    daemon.until(lambda: len(daemon.statuses()) == number and set(daemon.statuses().values()) == {"granted"}, 300)
    assert daemon.stop()[0] == 0
    idle = Daemon(made, made.wishlist(*quoted(wish(shelf, "many", "*"))), "--interval", "1h", state="new")
    idle.until(lambda: len(idle.statuses()) == number)
    time.sleep(1)
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{idle.process.pid}/status").read_text().splitlines())
    memory = int(fields["VmRSS"].split()[0]) / 1024
    print(f"{memory:.0f} MB with {number} images known")
    assert memory <= IDLE_MEGABYTES
