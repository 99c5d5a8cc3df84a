"""Docker's calls. One mount serves all containers that want the same name; it goes with the last of them.

What is done is written down before it is done, so that whatever is cut off can be done again: Docker repeats a call
that was not answered, and a start puts in order what nobody will ask for again.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ducc.errors import BadInput, DuccError
from ducc.image.strictjson import Fields
from ducc.plugin import Answer, Call
from volumes.mounting import Mounting
from volumes.names import VolumeName
from volumes.store import Store, Volume

log = logging.getLogger("ducc.volumes")


class VolumeInUse(DuccError):
    """A container has it."""


class OptionRefused(BadInput):
    """Volumes have no options."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"option {', '.join(names)[:100]}: there are none; the name says all: FQRN or FQRN@SNAPSHOT")


class VolumeDriver:
    """The calls by their names. A volume is worked on by one thread at a time; others are not kept waiting by it."""

    def __init__(self, store: Store, mounting: Mounting, now_seconds: Callable[[], float] = time.time) -> None:
        self._store, self._mounting, self._now_seconds = store, mounting, now_seconds
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def calls(self) -> dict[str, Call]:
        return {
            "VolumeDriver.Create": self._create,
            "VolumeDriver.Remove": self._remove,
            "VolumeDriver.Mount": self._mount,
            "VolumeDriver.Unmount": self._unmount,
            "VolumeDriver.Path": lambda fields: {"Mountpoint": self._mountpoint(self._asked(fields))},
            "VolumeDriver.Get": lambda fields: {"Volume": self._described(self._asked(fields))},
            "VolumeDriver.List": lambda _: {"Volumes": [self._described(one) for one in self._store.volumes()]},
            "VolumeDriver.Capabilities": lambda _: {"Capabilities": {"Scope": "local"}},
        }

    def put_in_order(self, boot: str) -> None:
        """At the start: keep what containers use, take away what nobody does."""
        self._store.begin_boot(boot)
        for volume in self._store.volumes():
            if volume.mounting is not None and not volume.uses:
                self._store.end_mounting(volume.name)
        kept = {volume.mounting for volume in self._store.volumes()}
        for number in self._mounting.numbers():
            if number not in kept:
                self._take_away(number)

    # --- the calls ---------------------------------------------------------------------------

    def _create(self, fields: Fields) -> Answer:
        name = VolumeName.parse(fields.text("Name"))
        if options := fields.text_map("Opts"):
            raise OptionRefused(sorted(options))
        self._store.add(str(name), int(self._now_seconds()))
        return {}

    def _remove(self, fields: Fields) -> Answer:
        """Docker asks when no container of its own has the volume; another daemon's container may have it."""
        name = fields.text("Name")
        with self._busy[name]:
            volume = self._store.volume(name)
            if volume.mounting is not None and volume.uses and self._mounting.is_shown_elsewhere(volume.mounting):
                raise VolumeInUse(f"volume {name} is in use by {volume.uses} containers")
            self._end_mounting(volume)
            self._store.remove(name)
        return {}

    def _mount(self, fields: Fields) -> Answer:
        name, use = fields.text("Name"), fields.text("ID")
        with self._busy[name]:
            volume = self._store.volume(name)
            self._store.use(name, use)
            if volume.mounting is not None and self._mounting.is_alive(volume.mounting):
                return {"Mountpoint": str(self._mounting.path(volume.mounting))}
            self._end_mounting(volume)
            try:
                number = self._store.begin_mounting(name)
                self._mounting.mount(VolumeName.parse(name), number)
            except BaseException:
                self._store.end_mounting(name)
                self._store.end_use(name, use)
                raise
        log.info("mounted: volume=%s at=%s", name, self._mounting.path(number))
        return {"Mountpoint": str(self._mounting.path(number))}

    def _unmount(self, fields: Fields) -> Answer:
        name = fields.text("Name")
        with self._busy[name]:
            self._store.volume(name)
            self._store.end_use(name, fields.text("ID"))
            volume = self._store.volume(name)
            if not volume.uses:
                self._end_mounting(volume)
        return {}

    # --- what they have in common ------------------------------------------------------------

    def _asked(self, fields: Fields) -> Volume:
        return self._store.volume(fields.text("Name"))

    def _mountpoint(self, volume: Volume) -> str:
        return "" if volume.mounting is None else str(self._mounting.path(volume.mounting))

    def _described(self, volume: Volume) -> dict[str, Any]:
        name = VolumeName.parse(volume.name)
        return {
            "Name": volume.name,
            "Mountpoint": self._mountpoint(volume),
            "CreatedAt": f"{datetime.fromtimestamp(volume.created_seconds, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "Status": {"repository": name.fqrn, name.kind.value: name.snapshot or True, "uses": volume.uses},
        }

    def _end_mounting(self, volume: Volume) -> None:
        if volume.mounting is not None:
            self._store.end_mounting(volume.name)
            self._take_away(volume.mounting)

    def _take_away(self, number: int) -> None:
        """What can't be unmounted now is tried again at the next start; nobody is kept waiting for it."""
        try:
            self._mounting.unmount(number)
        except (DuccError, OSError) as error:
            log.warning("a mount stays that nobody wants: at=%s reason=%s", self._mounting.path(number), error)
