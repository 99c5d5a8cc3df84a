"""`ducc-volumes` as a stranger runs it, at a socket where dockerd looks for plugins."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ducc.client.mountpoint import mounted_at
from tests.docker_plugin import PluginConnection
from tests.end_to_end.published import Published

PROGRAM = Path(sys.executable).with_name("ducc-volumes")
START_SECONDS = 60
CAPABILITIES = "-all,+sys_admin,+sys_ptrace,+chown,+dac_override,+fowner"  # what its systemd unit leaves it of root
CONFIGURATION = """\
CVMFS_SERVER_URL={url}
CVMFS_HTTP_PROXY=DIRECT
CVMFS_PUBLIC_KEY={key}
CVMFS_CACHE_BASE={cache}
CVMFS_CLAIM_OWNERSHIP=no
"""


@dataclass
class VolumePlugin:
    """One installation in *directory*. It can be started and killed again and again."""

    address: Path
    directory: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

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
        with self.log.open("ab") as log:
            sandbox = ["setpriv", "--pdeathsig", "KILL", "--bounding-set", CAPABILITIES, "--no-new-privs"]
            command = [*sandbox, PROGRAM, *places, "-v"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.answers():
                return
            time.sleep(0.05)
        raise RuntimeError(f"ducc-volumes did not start:\n{self.log.read_text()}")

    def answers(self) -> bool:
        try:
            return "Implements" in self.call("Plugin.Activate")
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL: nothing is put in order."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

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
