import os
import threading
from pathlib import Path

import pytest

from ducc.client import mountpoint
from ducc.client.mountpoint import MountFailed, claimed, forget, holder, state_path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is no mountpoint, with a run-time directory of its own."""
    monkeypatch.setattr(mountpoint, "_run_time_directory", lambda: tmp_path / "run")
    return tmp_path / "mnt"


def test_a_mountpoint_is_held_by_one_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holder(place) is None
    with claimed(place):
        assert holder(place) == os.getpid()
        monkeypatch.setattr(mountpoint, "_FORMER_SECONDS", 0.05)
        with pytest.raises(MountFailed, match="another mount namespace still uses that"), claimed(place):
            pass
        with claimed(place.with_name("other")):
            pass
    assert holder(place) is None
    with claimed(place):
        assert holder(place) == os.getpid()


def test_who_holds_it_next_is_told_at_once_and_never_nobody(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former one's number stands there until the next one's does."""
    with claimed(place):
        path = mountpoint._lock_path(place)
        former = path.read_text()
    seen: list[str] = []
    write = os.pwrite

    def watched(descriptor: int, data: bytes, offset: int) -> int:
        seen.append(path.read_text())
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", watched)
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with claimed(place):
        assert holder(place) == 7
    assert seen == [former]
    assert len(path.read_text()) == len(former)


def test_the_end_of_a_former_holder_is_waited_for(place: Path) -> None:
    former = claimed(place)
    former.__enter__()
    timer = threading.Timer(0.1, former.__exit__, (None, None, None))
    timer.start()
    with claimed(place):
        assert holder(place) == os.getpid()
    timer.join()


def test_who_only_looks_whether_it_is_held_is_not_taken_for_a_holder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = mountpoint.MountEntry("0:1", str(place), mountpoint.MOUNT_TYPE, "repo.example.org")
    monkeypatch.setattr(mountpoint, "mounted_at", lambda directory: entry)
    monkeypatch.setattr(mountpoint, "_GLANCE_SECONDS", 60)
    former = claimed(place)
    former.__enter__()
    timer = threading.Timer(0.05, former.__exit__, (None, None, None))
    timer.start()
    with claimed(place):
        assert holder(place) == os.getpid()
    timer.join()


def test_a_holder_that_goes_while_it_is_asked_for_is_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "_is_held", lambda lock: True)
    assert holder(place) is None


def test_what_is_mounted_is_refused_soon(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = mountpoint.MountEntry("0:1", str(place), mountpoint.MOUNT_TYPE, "repo.example.org")
    with claimed(place):
        monkeypatch.setattr(mountpoint, "mounted_at", lambda directory: entry)
        with pytest.raises(MountFailed, match="is mounted already"), claimed(place):
            pass


def test_nothing_is_left_of_a_mount_that_is_forgotten(place: Path, tmp_path: Path) -> None:
    with claimed(place):
        state_path(place).write_bytes(b"state")
        forget(place)
    assert list((tmp_path / "run").iterdir()) == []
    with claimed(place):  # a lock that was removed is made anew
        assert holder(place) == os.getpid()
