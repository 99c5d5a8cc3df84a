"""The home directory that Docker chose, and the driver of its layers.

Docker tells the directory when it starts, and never again. So it is noted, and a driver that was killed goes on where
it was while Docker and its containers keep running.
"""

import logging
import threading
from contextlib import ExitStack
from pathlib import Path

from ducc.errors import DuccError
from ducc.rootfs.state import only_one
from graphdriver.disk import DATABASE, LayerDisk
from graphdriver.driver import Driver, Images
from graphdriver.layers import RefusedCall
from graphdriver.store import Store

log = logging.getLogger("ducc.graphdriver")


class Home:
    """At most one home directory at a time, noted in the file *note*. Calls may come from any thread."""

    def __init__(self, note: Path, images: Images) -> None:
        self._note, self._images = note, images
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._driver: Driver | None = None
        self._is_begun = False  # has a daemon called `Init`, and not `Cleanup` since?
        self._opened = ExitStack()

    def resume(self) -> None:
        """Serve the directory that is noted, if there is one, as if there had been no interruption."""
        try:
            noted = Path(self._note.read_text().strip())
        except FileNotFoundError:
            return
        if _has_layers(noted):
            try:
                self._open(noted)
            except DuccError as error:
                log.warning("not resumed: home=%s reason=%s", noted, error)

    def driver(self) -> Driver:
        """Raises `RefusedCall` if no daemon has said where its layers are."""
        if self._driver is None:
            raise RefusedCall("GraphDriver.Init has not been called: restart Docker")
        return self._driver

    def begin(self, path: Path) -> None:
        """A daemon has started whose layers are in *path*. Raises `RefusedCall`, `StateUnusable`."""
        with self._lock:
            if self._path is not None and self._path != path:
                self._leave(path)
            elif self._path is not None and not _has_layers(path):
                self.close()  # somebody has deleted it all
            if self._driver is None:
                self._open(path)
                self._write_note(path)
            self.driver().begin()
            self._is_begun = True

    def end(self) -> None:
        """The daemon is stopping."""
        with self._lock:
            if self._driver is not None:
                self._driver.end()
            self._is_begun = False

    def close(self) -> None:
        """Let go of everything; mounts stay."""
        self._path = self._driver = None
        self._opened.close()

    def _leave(self, path: Path) -> None:
        if self._is_begun or self.driver().in_use():
            raise RefusedCall(
                f"{self._path} is served here already, so not {path}: each daemon needs a driver of its own"
            )
        self.close()

    def _open(self, path: Path) -> None:
        with ExitStack() as opened:
            disk = LayerDisk(path)
            opened.enter_context(only_one(path))
            driver = Driver(Store(disk.database), disk, self._images)
            opened.callback(driver.close)
            driver.recover()
            self._opened = opened.pop_all()
        self._path, self._driver = path, driver
        log.info("serving layers: home=%s", path)

    def _write_note(self, path: Path) -> None:
        new = self._note.with_name(f".{self._note.name}.new")
        new.write_text(f"{path}\n")
        new.replace(self._note)


def _has_layers(home: Path) -> bool:
    return (home / DATABASE).exists()
