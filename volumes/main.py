"""The program: Docker's volume plugin, on a unix socket.

Exit status: 0 when a signal stopped it, 2 bad options, 110 its files can't be relied on, 111 its socket is taken.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from ducc import logs
from ducc.errors import BadInput, DuccError

log = logging.getLogger("ducc.volumes")

ADDRESS = Path("/run/docker/plugins/ducc.sock")  # the file's name is the driver's: --volume-driver ducc
ROOT = Path("/var/lib/ducc-volumes")
ETC = Path("/etc/cvmfs")
_LONGEST_ADDRESS = 107  # bytes; the kernel takes no more


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    logs.set_up(arguments.verbose, as_json=arguments.log_json)
    try:
        run(arguments.address, arguments.root, arguments.etc)
    except DuccError as error:
        print(f"ducc-volumes: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(address: Path, root: Path, etc: Path) -> None:
    """Answer Docker at *address* until SIGTERM or SIGINT. Mounts that containers use stay."""
    from ducc.plugin import Plugin, serve
    from ducc.rootfs.state import only_one
    from volumes.driver import VolumeDriver
    from volumes.mounting import Mounting
    from volumes.store import BOOT, Store

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    _require(address, root, etc)
    with only_one(root), closing(Store(root / "volumes.sqlite")) as store:
        driver = VolumeDriver(store, Mounting(root, etc.absolute()))
        driver.put_in_order(BOOT.read_text().strip())
        ready = f"ready: address={address} root={root} volumes={len(store.volumes())}"
        serve(Plugin(["VolumeDriver"], driver.calls), address, lambda: log.info(ready))


def _require(address: Path, root: Path, etc: Path) -> None:
    if not address.is_absolute() or len(os.fsencode(address)) > _LONGEST_ADDRESS:
        raise BadInput(f"--address {address}: wanted an absolute path of {_LONGEST_ADDRESS} bytes at most")
    if not etc.is_dir():
        raise BadInput(f"--etc {etc}: there is no such directory; docs/volumes.md says what it is to hold")
    if not root.is_absolute():
        raise BadInput(f"--root {root}: wanted an absolute path, since Docker is told it")
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o711)
    except OSError as error:
        raise BadInput(f"--root {root}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("ducc-volumes", description="Let Docker's containers have repositories as volumes.")
    made.add_argument(
        "--address", metavar="SOCKET", type=Path, default=ADDRESS, help="where Docker finds it (%(default)s)"
    )
    made.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="mounts, and who uses them (%(default)s)")
    made.add_argument("--etc", metavar="DIR", type=Path, default=ETC, help="the client's configuration (%(default)s)")
    made.add_argument("--log-json", action="store_true", help="log one JSON object a line")
    made.add_argument("-v", "--verbose", action="count", default=0, help="log more; twice: everything")
    made.add_argument("--version", action="version", version=f"ducc-volumes {version('ducc')}")
    return made


if __name__ == "__main__":
    sys.exit(main())
