"""What systemd hears, by a socket of the kind that it listens on."""

import os
import socket
from contextlib import closing

import pytest

from ducc.daemon.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@ducc-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(address.replace("@", "\0"))
        listening.settimeout(60)
        yield address, lambda: listening.recv(4096)


def test_each_message_is_what_sd_notify_describes(manager):
    address, heard = manager
    notifier = Notifier({"NOTIFY_SOCKET": address}, lambda: 5_000_000)
    said = []
    for say in (lambda: notifier.ready("works"), notifier.reloading, notifier.stopping, notifier.alive):
        say()
        said.append(heard())
    assert said == [
        b"READY=1\nSTATUS=works",
        b"RELOADING=1\nMONOTONIC_USEC=5000",
        b"STOPPING=1\nSTATUS=stopping",
        b"WATCHDOG=1",
    ]


def test_a_status_is_one_line_whatever_is_in_it(manager):
    address, heard = manager
    Notifier({"NOTIFY_SOCKET": address}).status("a\nREADY=1")
    assert heard() == b"STATUS=a READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2"}])
def test_without_a_manager_nothing_happens(environ):
    Notifier(environ).ready("works")


def test_a_manager_that_has_gone_stops_nobody(tmp_path):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_the_watchdog_is_told_twice_as_often_as_it_asks(environ, seconds):
    assert Notifier(environ).watchdog_seconds == seconds
