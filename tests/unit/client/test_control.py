import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ducc.cli.mount_helper import main, translated
from ducc.client.control import Message, NotAnswering, OrderFailed, _handler, _Server, answering, ask
from ducc.client.metrics import prometheus
from ducc.client.mountpoint import control_path
from ducc.errors import BadInput


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mountpoint whose socket lies in a directory of the test's own, with a name that is short enough for one."""
    with TemporaryDirectory(prefix="ducc-") as short:
        monkeypatch.setattr("ducc.client.mountpoint._run_time_directory", lambda: Path(short) / "run")
        yield tmp_path / "mnt"


@pytest.fixture
def mount(place: Path) -> Iterator[Path]:
    with answering(place, answer):
        yield place


def answer(message: Message) -> Message:
    match message["command"]:
        case "bad":
            raise BadInput("that was bad")
        case "worse":
            raise ZeroDivisionError
    return {"you said": message}


def test_a_question_is_answered_and_only_the_owner_may_ask(mount: Path) -> None:
    assert ask(mount, {"command": "x", "path": "ä"}) == {"you said": {"command": "x", "path": "ä"}}
    status = os.stat(control_path(mount))
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE(os.stat(control_path(mount).parent).st_mode) == 0o700


def test_what_goes_wrong_is_told_and_ends_nothing(mount: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OrderFailed, match="that was bad"):
        ask(mount, {"command": "bad"})
    with pytest.raises(OrderFailed, match="unexpected ZeroDivisionError"):
        ask(mount, {"command": "worse"})
    for line in (b"nonsense\n", b"[]\n", b"\n", b"\xff" * 100_000):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(control_path(mount)))
            asking.sendall(line)
            asking.shutdown(socket.SHUT_WR)
            assert json.loads(asking.makefile("rb").readline()) == {"error": "not a question"}
    assert ask(mount, {"command": "x"})


def test_nobody_there_is_said_so_and_what_was_left_behind_is_replaced(place: Path) -> None:
    with pytest.raises(NotAnswering, match="no such file"):
        ask(place, {"command": "x"})
    control_path(place).parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(control_path(place)))
    with pytest.raises(NotAnswering, match="refused"):
        ask(place, {"command": "x"})
    with answering(place, answer):
        assert ask(place, {"command": "x"})
    assert not control_path(place).exists()


def test_many_may_ask_before_the_first_one_is_heard(place: Path) -> None:
    control_path(place).parent.mkdir()
    with ExitStack() as opened:
        opened.enter_context(_Server(str(control_path(place)), _handler(answer, lambda: None)))
        for _ in range(100):
            asking = opened.enter_context(socket.socket(socket.AF_UNIX))
            asking.settimeout(60)  # as who asks does: then a full queue is an error
            asking.connect(str(control_path(place)))


def test_a_process_that_is_stopped_is_not_waited_for(place: Path) -> None:
    control_path(place).parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(control_path(place)))
        stopped.listen()
        with pytest.raises(NotAnswering, match="in time"):
            ask(place, {"command": "x"}, seconds=0.1)


def test_figures_are_grouped_by_name_and_labels_are_escaped() -> None:
    one = {"fqrn": "a.b", "mountpoint": '/a"b\\', "revision": 5, "problem": "", "cache": {"hits": 7}}
    two = {"fqrn": "c.d", "mountpoint": "/c", "revision": 6, "problem": "gone", "cache": {"limit_bytes": None}}
    lines = prometheus([one, two]).splitlines()
    label = '{fqrn="a.b",mountpoint="/a\\"b\\\\"}'
    at = lines.index("# TYPE ducc_client_revision gauge")
    assert lines[at + 1 : at + 3] == [
        f"ducc_client_revision{label} 5",
        'ducc_client_revision{fqrn="c.d",mountpoint="/c"} 6',
    ]
    assert f"ducc_client_up{label} 1" in lines
    assert 'ducc_client_stale{fqrn="c.d",mountpoint="/c"} 1' in lines
    assert f"ducc_client_cache_hits_total{label} 7" in lines
    assert not [line for line in lines if "limit" in line or "requests" in line]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("repo.a.b /mnt -o rw", "mount repo.a.b /mnt"),
        ("repo.a.b /mnt -v -n -o rw,nosuid,etc=/e,_netdev", "mount -v --etc=/e repo.a.b /mnt"),
        (
            "-o url=http://x/cvmfs/y,public_key=/k repo.a.b /mnt",
            "mount --url=http://x/cvmfs/y --public-key=/k repo.a.b /mnt",
        ),
        ("repo.a.b /mnt -t ducc -N 5 -o cache_limit=2,x-systemd.automount", "mount --cache-limit=2 repo.a.b /mnt"),
    ],
)
def test_what_mount_says_to_its_helper_is_understood(words: str, meant: str) -> None:
    translation = list(translated(words.split()))
    assert sorted(translation) == sorted(meant.split())
    assert translation[0] == "mount"
    assert translation[-2:] == ["repo.a.b", "/mnt"]


def test_a_line_for_all_repositories_is_understood() -> None:
    words = list(translated(["none", "/cvmfs", "-o", "rw,all,idle=60,etc=/e"]))
    assert words == ["mount", "--idle=60", "--etc=/e", "--all=/cvmfs"]


def test_what_the_helper_can_not_do_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repo.a.b"]) == 2
    assert main(["repo.a.b", "/mnt", "-o", "remount,ro"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
