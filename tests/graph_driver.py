"""`ducc-graphdriver` as a stranger runs it, at a socket of its own, and who speaks to it as dockerd does."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docker_plugin import PluginConnection
from tests.leftovers import mounts
from tests.plugin_program import PluginProgram

PROGRAM = Path(sys.executable).with_name("ducc-graphdriver")
CAPABILITIES = "-all,+sys_admin,+chown,+dac_override,+fowner,+fsetid,+mknod,+setfcap"


@dataclass
class GraphDriver(PluginProgram):
    """One installation in *directory*. It can be started and killed again and again."""

    directory: Path
    repositories: Sequence[tuple[str, Path]]
    address: Path
    settings: str = ""

    @property
    def name(self) -> str:
        """What Docker calls it, if the socket is where Docker looks for plugins."""
        return self.address.stem

    @property
    def home(self) -> Path:
        """For tests without a daemon, which would choose another."""
        return self.directory / "home"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def configure(self) -> Path:
        config = self.directory / "config.toml"
        tables = [f'[[repositories]]\nname = "{name}"\nmountpoint = "{place}"\n' for name, place in self.repositories]
        places = f'state = "{self.directory / "state"}"\naddress = "{self.address}"\n'
        config.write_text(places + self.settings + "".join(tables))
        return config

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        options, sandbox = ("--config", self.configure()), ("--bounding-set", CAPABILITIES)
        self.run(PROGRAM, options, sandbox, self.log, self._answers)

    # --- calls ---

    def call(self, call: str, **fields: object) -> dict[str, Any]:
        """What is answered; an error is a failure of the test."""
        answer = self.answer(call, **fields)
        assert not answer.get("Err"), answer
        return answer

    def refused(self, call: str, **fields: object) -> str:
        """The one line that says why the call is refused."""
        error = self.answer(call, **fields)["Err"]
        assert error
        assert "\n" not in error
        return str(error)

    def answer(self, call: str, **fields: object) -> dict[str, Any]:
        with self.connected() as connection:
            return connection.call(f"GraphDriver.{call}", **fields)

    def init(self, home: Path | None = None) -> None:
        self.call("Init", Home=str(home or self.home), Opts=[], UIDMaps=None, GIDMaps=None)

    def get(self, name: str) -> Path:
        return Path(self.call("Get", ID=name)["Dir"])

    def diff(self, name: str, parent: str = "") -> bytes:
        with self.connected() as connection:
            status, archive = connection.ask(
                "GraphDriver.Diff", b'{"ID": "%b", "Parent": "%b"}' % _encoded(name, parent)
            )
        assert status == 200, archive
        return archive

    def apply(self, name: str, archive: bytes | Iterable[bytes], parent: str = "") -> dict[str, Any]:
        """What is answered to an archive, sent as a stream of unknown length."""
        pieces = [archive] if isinstance(archive, bytes) else archive
        with self.connected() as connection:
            return connection.upload(f"GraphDriver.ApplyDiff?id={name}&parent={parent}", pieces)

    def layer(self, name: str, archive: bytes, parent: str = "") -> None:
        """Make a layer of an archive, as a pull does."""
        self.call("Create", ID=name, Parent=parent)
        assert "Err" not in self.apply(name, archive, parent)

    @contextmanager
    def connected(self) -> Iterator["Connection"]:
        connection = Connection(self.address)
        try:
            yield connection
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            with self.connected() as connection:
                return "Implements" in connection.call("Plugin.Activate")
        except OSError:
            return False


class Connection(PluginConnection):
    def upload(self, name: str, pieces: Iterable[bytes]) -> dict[str, Any]:
        return json.loads(self.ask(name, iter(pieces))[1])


def _encoded(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


@contextmanager
def running_graph_driver(
    directory: Path, *repositories: tuple[str, Path], address: Path | None = None, settings: str = ""
) -> Iterator[GraphDriver]:
    """Run with *repositories* (name, mountpoint) until the block ends; what is mounted then is unmounted."""
    named = repositories or (("images.example.org", Path("/cvmfs/images.example.org")),)
    driver = GraphDriver(directory, named, address or directory / "g.sock", settings)
    try:
        driver.start()
        yield driver
    finally:
        driver.kill()
        driver.address.unlink(missing_ok=True)
        for line in mounts(driver.home):
            subprocess.run(["umount", "--lazy", line.split()[2]], check=False)
