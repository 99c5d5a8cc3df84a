"""Who waits for which command, with a pipe in place of the kernel."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ducc.client.autofs import Kind, Packet
from ducc.client.automount import Automount, _Answering
from ducc.client.background import Start

CONFIGURATION = "config-repo.example.org"


class Kernel:
    """Notes which packets it was told about."""

    def __init__(self) -> None:
        self.pipe, self._writing = os.pipe()
        self.ready_tokens: set[int] = set()

    def ready(self, token: int) -> None:
        self.ready_tokens.add(token)

    def fail(self, token: int) -> None:
        pytest.fail(f"{token} was refused")

    def close(self) -> None:
        os.close(self.pipe)
        os.close(self._writing)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


def test_all_who_need_one_repository_first_wait_for_one_command(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def mount(name: str, directory: Path) -> list[str]:
        commands.append(name)
        return ["true"]

    answering = _Answering(Automount(tmp_path, tmp_path, mount, mount), kernel, Start(lambda: None))  # type: ignore[arg-type]

    def is_mounted(name: str) -> bool:
        return name in commands and answering._running(name) is None

    def needs_first(name: str) -> str | None:
        return CONFIGURATION if not is_mounted(CONFIGURATION) else None

    monkeypatch.setattr(answering, "_is_mounted", is_mounted)
    monkeypatch.setattr(answering, "_may_be_mounted", lambda name: True)
    monkeypatch.setattr(answering, "_configuration_repository", needs_first)
    for token, name in enumerate((b"one.example.org", b"two.example.org")):
        answering._take(Packet(Kind.MISSING, token, name))
    assert commands == [CONFIGURATION]
    deadline = time.monotonic() + 60
    while kernel.ready_tokens != {0, 1}:
        assert time.monotonic() < deadline
        answering._answer_some()
    assert commands == [CONFIGURATION, "one.example.org", "two.example.org"]
