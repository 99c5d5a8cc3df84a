"""The driver over a real store, and over directories in place of mounts, which can be cut off at any step."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ducc.image.strictjson import Fields
from volumes.driver import VolumeDriver, VolumeInUse
from volumes.mounting import MountFailed
from volumes.names import VolumeName
from volumes.store import NoSuchVolume, Store

NAME = "repo.example.org"


class PowerCut(BaseException):
    """The plugin was killed."""


class Directories:
    """What `Mounting` promises. *shown* are mounts that containers have as well; *before* is called at each step."""

    def __init__(self) -> None:
        self.there: dict[int, VolumeName] = {}
        self.shown: set[int] = set()
        self.dead: set[int] = set()
        self.before: Callable[[], None] = lambda: None

    def path(self, number: int) -> Path:
        return Path("/mounts") / str(number)

    def mount(self, name: VolumeName, number: int) -> None:
        self.before()
        assert number not in self.there
        self.there[number] = name
        self.before()

    def is_alive(self, number: int) -> bool:
        return number in self.there and number not in self.dead

    def is_shown_elsewhere(self, number: int) -> bool:
        return number in self.shown

    def unmount(self, number: int) -> None:
        self.before()
        self.there.pop(number, None)
        self.before()

    def numbers(self) -> Iterator[int]:
        return iter(list(self.there))


class Site:
    """A plugin that can be killed and started again over what it has written down."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "volumes.sqlite"
        self.mounts = Directories()
        self.boot = "first"
        self._store: Store | None = None
        self.start()

    def start(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = Store(self._path)
        self._driver = VolumeDriver(self._store, self.mounts, lambda: 1_795_000_000)  # type: ignore[arg-type]
        self._driver.put_in_order(self.boot)

    def call(self, name: str, **fields: object) -> Any:
        return self._driver.calls[f"VolumeDriver.{name}"](Fields(fields, name))

    def mount(self, use: str, name: str = NAME) -> str:
        return self.call("Mount", Name=name, ID=use)["Mountpoint"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.call("Create", Name=NAME)
    return site


def test_a_volume_is_described_whether_it_is_mounted_or_not(site: Site) -> None:
    site.call("Create", Name=f"{NAME}@7", Opts=None)
    assert site.call("Path", Name=NAME) == {"Mountpoint": ""}
    mountpoint = site.mount("a")
    assert site.call("Path", Name=NAME) == {"Mountpoint": mountpoint}
    assert site.call("Get", Name=NAME) == {
        "Volume": {
            "Name": NAME,
            "Mountpoint": mountpoint,
            "CreatedAt": "2026-11-18T11:06:40Z",
            "Status": {"repository": NAME, "newest": True, "uses": 1},
        }
    }
    assert [one["Name"] for one in site.call("List")["Volumes"]] == [NAME, f"{NAME}@7"]
    assert site.call("Capabilities") == {"Capabilities": {"Scope": "local"}}


@pytest.mark.parametrize("call", ["Mount", "Unmount", "Remove", "Get", "Path"])
def test_a_volume_that_nobody_made_is_not_there(site: Site, call: str) -> None:
    with pytest.raises(NoSuchVolume, match=r"there is no volume 'other\.example\.org'"):
        site.call(call, Name="other.example.org", ID="a")


def test_making_a_volume_again_changes_nothing(site: Site) -> None:
    mountpoint = site.mount("a")
    site.call("Create", Name=NAME)
    assert site.call("Path", Name=NAME) == {"Mountpoint": mountpoint}


def test_uses_are_counted_by_their_ids_however_often_each_is_said(site: Site) -> None:
    assert site.mount("a") == site.mount("a") == site.mount("b")
    assert len(site.mounts.there) == 1
    site.call("Unmount", Name=NAME, ID="a")
    site.call("Unmount", Name=NAME, ID="a")
    site.call("Unmount", Name=NAME, ID="never")
    assert len(site.mounts.there) == 1
    site.call("Unmount", Name=NAME, ID="b")
    assert not site.mounts.there


def test_a_mount_that_fails_leaves_no_use(site: Site) -> None:
    def fail() -> None:
        raise MountFailed("no server answers")

    site.mounts.before = fail
    with pytest.raises(MountFailed):
        site.mount("a")
    assert site.call("Get", Name=NAME)["Volume"]["Status"]["uses"] == 0
    assert site.call("Path", Name=NAME) == {"Mountpoint": ""}


def test_a_dead_mount_is_replaced_and_never_at_the_same_place(site: Site) -> None:
    before = site.mount("a")
    site.mounts.dead.add(1)
    assert site.mount("b") != before
    assert list(site.mounts.there) == [2]
    site.call("Unmount", Name=NAME, ID="a")
    assert list(site.mounts.there) == [2]


def test_a_restart_keeps_what_containers_use_and_nothing_else(site: Site) -> None:
    used = site.mount("a")
    site.mounts.there[77] = VolumeName(NAME)  # of a state that was lost
    site.start()
    assert list(site.mounts.there) == [1]
    assert site.mount("b") == used


def test_after_a_restart_of_the_machine_nobody_uses_anything(site: Site) -> None:
    site.mount("a")
    site.mounts.there.clear()
    site.boot = "second"
    site.start()
    site.call("Unmount", Name=NAME, ID="a")  # Docker may still say so
    site.mount("b")
    site.call("Unmount", Name=NAME, ID="b")
    assert not site.mounts.there


def test_a_volume_that_a_container_shows_is_not_removed(site: Site) -> None:
    site.mount("a")
    site.mounts.shown.add(1)
    with pytest.raises(VolumeInUse, match="in use by 1 containers"):
        site.call("Remove", Name=NAME)
    assert list(site.mounts.there) == [1]


def test_a_use_whose_end_nobody_told_does_not_keep_a_volume_for_ever(site: Site) -> None:
    site.mount("a")
    site.call("Remove", Name=NAME)
    assert not site.mounts.there
    assert site.call("List") == {"Volumes": []}


@pytest.mark.parametrize("operation", ["Mount", "Unmount", "Remove"])
@pytest.mark.parametrize("cut_at", [1, 2])
def test_a_plugin_killed_at_any_step_finishes_when_docker_asks_again(site: Site, operation: str, cut_at: int) -> None:
    if operation != "Mount":
        site.mount("a")
    steps = iter(range(1, 100))

    def cut() -> None:
        if next(steps) == cut_at:
            raise PowerCut

    site.mounts.before = cut
    with pytest.raises(PowerCut):
        site.call(operation, Name=NAME, ID="a")
    site.mounts.before = lambda: None
    site.start()
    if operation == "Remove":
        with suppress(NoSuchVolume):
            site.call(operation, Name=NAME)
    else:
        site.call(operation, Name=NAME, ID="a")
    assert len(site.mounts.there) == (1 if operation == "Mount" else 0)
    site.call("Create", Name=NAME)
    site.mount("b")
    for use in ("a", "b"):
        site.call("Unmount", Name=NAME, ID=use)
    assert not site.mounts.there
