"""A plugin in a process of its own, asked as dockerd asks."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from ducc.plugin import MOST_BYTES
from ducc.unixsocket import SocketTaken, listen_privately
from tests.docker_plugin import PluginConnection

PROGRAM = """
import sys, time
from pathlib import Path
from ducc.errors import BadInput
from ducc.plugin import Plugin, serve

def refuse(fields):
    raise BadInput(f"no {fields.text('Name')} here")

def fail(fields):
    raise ZeroDivisionError("a fault")

def late(fields):
    yield b"first"
    raise BadInput("too late")

def early(fields):
    raise BadInput("in time")
    yield b""

calls = {
    "Test.Echo": lambda fields: {"Name": fields.text("Name", "nobody")},
    "Test.Refuse": refuse,
    "Test.Fail": fail,
    "Test.Sleep": lambda fields: time.sleep(fields.integer("Seconds")) or {},
    "Test.Pieces": lambda fields: iter([b"piece"] * fields.integer("Count")),
    "Test.Late": late,
    "Test.Early": early,
}
def measure(fields, body):
    return {"Id": fields.text("id"), "Size": sum(map(len, iter(lambda: body.read(10_000), b"")))}

serve(Plugin(["Test"], calls, {"Test.Upload": measure}), Path(sys.argv[1]), lambda: print("ready", flush=True))
"""


@contextmanager
def running(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """The process, and its socket."""
    address = directory / "plugins" / "test.sock"
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", PROGRAM, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process, address
        process.kill()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running(tmp_path_factory.mktemp("plugin")) as (_, address):
        yield address


@pytest.fixture
def connection(address: Path) -> Iterator[PluginConnection]:
    connection = PluginConnection(address)
    yield connection
    connection.close()


def test_it_says_what_it_is_and_answers_calls(connection: PluginConnection) -> None:
    assert connection.ask("Plugin.Activate") == (200, b'{"Implements": ["Test"]}')
    assert connection.call("Test.Echo", Name="somebody") == {"Name": "somebody"}
    assert connection.ask("Test.Echo") == (200, b'{"Name": "nobody"}')


@pytest.mark.parametrize(
    ("name", "body", "error"),
    [
        ("Test.Refuse", b'{"Name": "such"}', "no such here"),
        ("Test.Fail", b"{}", "unexpected ZeroDivisionError: a fault; this is a fault of ducc, the log has more"),
        ("Test.Early", b"{}", "in time"),
        ("Test.Echo", b"[]", "Test.Echo: a JSON object was expected, not an array"),
        ("Test.Echo", b"{", "Test.Echo: not valid JSON"),
        ("Test.Echo", b'{"Name": "a", "Name": "b"}', "stands twice"),
        ("Test.Echo", b'{"Name": 1}', "'Name' must be a string, not an integer"),
        ("Test.Echo", b"[" * 100_000, "nested too deep"),
        ("Test.Echo", b" " * (MOST_BYTES + 1), "a request of more than"),
    ],
)
def test_what_is_refused_is_one_line(connection: PluginConnection, name: str, body: bytes, error: str) -> None:
    status, answer = connection.ask(name, body)
    assert status == 500
    assert error in json.loads(answer)["Err"]
    assert "\n" not in json.loads(answer)["Err"]
    assert connection.call("Test.Echo") == {"Name": "nobody"}


@pytest.mark.parametrize(("method", "path"), [("GET", "Test.Echo"), ("POST", "Test.None"), ("POST", "../Test.Echo")])
def test_other_calls_do_not_exist(connection: PluginConnection, method: str, path: str) -> None:
    status, answer = connection.ask(path, method=method)
    assert (status, "there is no such call" in json.loads(answer)["Err"]) == (404, True)


def test_a_stream_of_unknown_length_is_read_as_it_comes(connection: PluginConnection) -> None:
    answer = connection.ask("Test.Upload?id=layer", iter([b"x" * 70_000] * 50))
    assert answer == (200, b'{"Id": "layer", "Size": 3500000}')


def test_bytes_are_answered_piece_by_piece(connection: PluginConnection) -> None:
    assert connection.ask("Test.Pieces", b'{"Count": 1000}') == (200, b"piece" * 1000)
    assert connection.ask("Test.Pieces", b'{"Count": 0}') == (200, b"")


def test_bytes_that_end_too_soon_are_not_taken_for_the_whole(connection: PluginConnection) -> None:
    with pytest.raises(HTTPException):
        connection.ask("Test.Late", b"{}")


def test_a_slow_call_keeps_no_other_one_waiting(connection: PluginConnection, address: Path) -> None:
    slow = PluginConnection(address)
    slow.request("POST", "/Test.Sleep", b'{"Seconds": 5}')
    assert connection.call("Test.Echo") == {"Name": "nobody"}
    slow.close()


def test_only_its_owner_can_connect(address: Path) -> None:
    assert address.stat().st_mode & 0o777 == 0o600


def test_it_ends_by_a_signal_and_leaves_no_socket(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        process.terminate()
        assert process.wait(60) == 0
        assert not address.exists()


def test_a_socket_that_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        process.kill()
        process.wait()
        assert address.is_socket()
        listen_privately(address).close()


def test_a_socket_in_use_and_other_files_are_left_alone(address: Path) -> None:
    with pytest.raises(SocketTaken, match="another process listens"):
        listen_privately(address)
    file = address.with_name("file")
    file.write_text("content")
    with pytest.raises(SocketTaken, match="is not a socket"):
        listen_privately(file)
    assert file.read_text() == "content"
    with pytest.raises(SocketTaken, match="can't listen"):
        listen_privately(file / "below")
