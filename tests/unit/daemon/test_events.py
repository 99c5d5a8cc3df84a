"""Notifications: the Go program's keys, and that telling never stops what is told of."""

import hashlib
import hmac
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ducc.convert.observer import Unobserved
from ducc.daemon import events as module
from ducc.daemon.events import SIGNATURE, Events, FileSink, HttpSink, TellingObserver, read_secret
from ducc.errors import BadInput
from ducc.image.digest import Digest

LAYER = Digest.of(b"layer")
SECRET = b"a secret of some length"


@contextmanager
def receiver(*statuses):
    """A server that answers with these, then 200; yields its URL, and what it received."""
    received, answers = [], list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((dict(self.headers), body))
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def actions(received):
    return [event["action"] for _, body in received for event in json.loads(body)["events"]]


def test_a_batch_in_the_words_of_the_go_program(tmp_path):
    path = tmp_path / "events"
    observer = TellingObserver(Events([FileSink(path)], lambda: 1_700_000_000.5), Unobserved())
    observer.begin("https://r/a:1", b"/r/a:1")
    with observer.layer(LAYER, 123):
        pass
    observer.image("https://r/a:1", "published", "")
    observer.image("https://r/b:1", "failed", "why")
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["action"] for event in told] == [
        "start_flat_conversion", "start_layer_conversion", "end_layer_conversion", "publish_flat_image",
        "end_flat_conversion", "end_flat_conversion",
    ]  # fmt: skip
    assert all(isinstance(value, str) for event in told for value in event.values())
    assert {event["time"] for event in told} == {"14 Nov 2023 - 22:13:20.500"}
    assert told[0]["id"] == told[3]["id"] == told[4]["id"] != told[1]["id"] == told[2]["id"]
    assert (told[0]["public_path"], told[1]["size_bytes"]) == ("/r/a:1", "123")
    assert told[2]["private_path"] == f"/.layers/{LAYER.hex[:2]}/{LAYER.hex}/layerfs"
    assert (told[4]["status"], told[5]["status"], told[5]["error"]) == ("ok", "error", "why")


def test_a_layer_that_fails_ends_with_an_error(tmp_path):
    observer = TellingObserver(Events([FileSink(tmp_path / "events")]), Unobserved())
    with pytest.raises(ValueError), observer.layer(LAYER, 1):
        raise ValueError
    assert json.loads((tmp_path / "events").read_text().splitlines()[-1])["status"] == "error"


def test_a_file_that_is_moved_away_is_made_again(tmp_path):
    events = Events([FileSink(tmp_path / "events")])
    events.tell("one")
    (tmp_path / "events").rename(tmp_path / "old")
    events.tell("two")
    assert '"two"' in (tmp_path / "events").read_text()


def test_a_file_that_can_not_be_written_costs_one_warning(tmp_path, caplog):
    events = Events([FileSink(tmp_path / "missing" / "events")])
    events.tell("one")
    events.tell("two")
    assert caplog.text.count("notifications not written") == 1


def test_events_are_posted_signed_and_in_order():
    with receiver() as (url, received):
        events = Events([HttpSink(url, SECRET)])
        for number in range(250):
            events.tell(f"action {number}")
        events.close(60)
    assert actions(received) == [f"action {number}" for number in range(250)]
    assert len(received) < 250
    for headers, body in received:
        assert headers["Content-Type"] == "application/json"
        assert headers[SIGNATURE] == f"sha256={hmac.new(SECRET, body, hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(status):
    with receiver(status, status) as (url, received):
        sink = HttpSink(url, chance=lambda: 0.0)
        sink.send({"action": "one"})
        until(lambda: len(received) >= 3)
        sink.close(60)
    assert len({body for _, body in received}) == 1


@pytest.mark.parametrize(("statuses", "requests"), [((400,), 1), ((302,), 1), ((500,) * 9, 4)])
def test_a_server_that_says_no_costs_a_warning_without_the_secret_parts_of_its_url(statuses, requests, caplog):
    with receiver(*statuses) as (url, received):
        sink = HttpSink(url.replace("http://", "http://user:canary@") + "?token=canary", chance=lambda: 0.0)
        sink.send({"action": "one"})
        until(lambda: "not delivered" in caplog.text)
        sink.close(60)
    assert len(received) == requests
    assert "canary" not in caplog.text


def test_a_silent_server_holds_nobody_up_and_memory_is_bounded(caplog, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 50)
    monkeypatch.setattr(module, "_TIMEOUTS", (0.05, 0.05))
    with receiver() as (url, _):
        pass  # nobody listens there any more
    events = Events([HttpSink(url, chance=lambda: 1.0)])
    started = time.monotonic()
    for number in range(10_000):
        events.tell(f"action {number}")
    events.close(2)
    assert time.monotonic() - started < 60


def test_with_as_many_events_as_can_wait_it_ends_when_they_are_sent(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 50)
    begun, goes_on = threading.Event(), threading.Event()
    sink = HttpSink("http://127.0.0.1/")
    sent = []

    def post(session, body):
        begun.set()
        assert goes_on.wait(60)
        sent.extend(json.loads(body)["events"])

    sink._post = post
    sink.send({"action": "0"})
    assert begun.wait(60)
    for number in range(1, 51):
        sink.send({"action": f"{number}"})
    threading.Timer(0.05, goes_on.set).start()
    sink.close(60)
    assert not sink._thread.is_alive()
    assert [event["action"] for event in sent] == [f"{number}" for number in range(51)]


@pytest.mark.parametrize(("mode", "text"), [(0o640, SECRET), (0o604, SECRET), (0o600, b"short")])
def test_a_secret_that_others_can_read_or_guess_is_refused(tmp_path, mode, text):
    path = tmp_path / "secret"
    path.write_bytes(text)
    path.chmod(mode)
    with pytest.raises(BadInput) as caught:
        read_secret(path)
    assert SECRET.decode() not in str(caught.value)


def test_a_secret_is_what_stands_in_the_file(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    assert read_secret(path) == SECRET
