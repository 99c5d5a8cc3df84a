"""`ducc-volumes` as a stranger runs it, at a socket where dockerd looks for plugins."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ducc.client.mountpoint import mounted_at
from tests.docker_plugin import PluginConnection
from tests.end_to_end.published import Published
from tests.plugin_program import PluginProgram

PROGRAM = Path(sys.executable).with_name("ducc-volumes")
CAPABILITIES = "-all,+sys_admin,+sys_ptrace,+chown,+dac_override,+fowner"  # what its systemd unit leaves it of root
CONFIGURATION = """\
CVMFS_SERVER_URL={url}
CVMFS_HTTP_PROXY=DIRECT
CVMFS_PUBLIC_KEY={key}
CVMFS_CACHE_BASE={cache}
CVMFS_CLAIM_OWNERSHIP=no
"""


@dataclass
class VolumePlugin(PluginProgram):
    """One installation in *directory*. It can be started and killed again and again."""

    address: Path
    directory: Path

    @property
    def driver(self) -> str:
        return self.address.stem

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def configure(self, made: Published, url: str) -> None:
        """Say in the client's configuration where the repository is."""
        (self.etc / "config.d").mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(url=url, key=made.public_key, cache=self.directory / "cache")
        (self.etc / "config.d" / f"{made.fqrn}.conf").write_text(text)

    def start(self) -> None:
        self.etc.mkdir(parents=True, exist_ok=True)
        places = ["--address", self.address, "--root", self.directory / "root", "--etc", self.etc]
        sandbox = ("--bounding-set", CAPABILITIES, "--no-new-privs")
        self.run(PROGRAM, (*places, "-v"), sandbox, self.log, self.answers)

    def answers(self) -> bool:
        try:
            return "Implements" in self.call("Plugin.Activate")
        except OSError:
            return False

    def call(self, name: str, **fields: object) -> dict[str, Any]:
        connection = PluginConnection(self.address)
        try:
            return connection.call(name, **fields)
        finally:
            connection.close()

    def mounts(self) -> list[Path]:
        """Where repositories are mounted now."""
        directories = (self.directory / "root" / "mounts").glob("*")
        return sorted(directory for directory in directories if mounted_at(directory) is not None)


@contextmanager
def running_volume_plugin(address: Path, directory: Path) -> Iterator[VolumePlugin]:
    """Run until the block ends; what is mounted then is unmounted."""
    plugin = VolumePlugin(address, directory)
    address.parent.mkdir(parents=True, exist_ok=True)
    try:
        plugin.start()
        yield plugin
    finally:
        plugin.kill()
        address.unlink(missing_ok=True)
        for mountpoint in plugin.mounts():
            subprocess.run(["umount", "--lazy", mountpoint], check=False)
