"""The program: Docker's graph driver for published images, on a unix socket.

Exit status: 0 when a signal stopped it, 2 bad settings, 110 its files can't be relied on, 111 its socket is taken.
"""

import argparse
import logging
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from ducc import logs
from ducc.errors import BadInput, DuccError
from ducc.rootfs.settings import LOG_LEVELS
from graphdriver.settings import DEFAULT_CONFIG, Settings, read_settings

log = logging.getLogger("ducc.graphdriver")

_DESCRIPTION = "Let Docker 20.10 to 27 run published images without pulling their layers. Docker 28 and newer have no"
_INSTEAD = "graph-driver plugins: for them there is ducc-snapshotter."


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        options = {"address": arguments.address, "state": arguments.state, "log-level": arguments.log_level}
        settings = read_settings(arguments.config, options)
        logs.set_up(LOG_LEVELS[settings.log_level], as_json=settings.log_json)
        with ExitStack() as opened:
            run(settings, opened)
    except DuccError as error:
        print(f"ducc-graphdriver: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(settings: Settings, opened: ExitStack) -> None:
    """Answer Docker until SIGTERM or SIGINT; what it holds meanwhile is put on *opened*. Mounts stay."""
    from ducc.plugin import serve
    from ducc.rootfs.state import only_one
    from graphdriver.calls import Calls
    from graphdriver.docker import advice, installed
    from graphdriver.home import Home
    from graphdriver.published import PublishedImages

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    opened.callback(os.umask, os.umask(0o022))
    _allow_many_files()
    _make(settings.state)
    opened.enter_context(only_one(settings.state))
    home = Home(settings.state / "home", PublishedImages(settings.repositories, settings.deadline_seconds))
    opened.callback(home.close)
    home.resume()
    if told := advice(installed()):
        log.warning("%s", told)
    named = ", ".join(f"{repository.fqrn} at {repository.mountpoint}" for repository in settings.repositories)
    plugin = Calls(home, lambda: _status(settings)).plugin()
    serve(plugin, settings.address, lambda: log.info("ready: address=%s repositories=%s", settings.address, named))


def _status(settings: Settings) -> list[tuple[str, str]]:
    from graphdriver.calls import DOCKER_VERSIONS

    shown = [(f"Repository {found.fqrn}", str(found.mountpoint)) for found in settings.repositories]
    return [("Version", version("ducc")), ("Docker", DOCKER_VERSIONS), ("Native Overlay Diff", "true"), *shown]


def _make(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInput(f"state {state}: {error.strerror}") from error


def _allow_many_files() -> None:
    """Directories are looked through with one descriptor a level, and many callers may be idle."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="ducc-graphdriver", description=f"{_DESCRIPTION} {_INSTEAD}")
    made.add_argument("--config", metavar="FILE", type=Path, default=DEFAULT_CONFIG, help="settings (%(default)s)")
    made.add_argument("--address", metavar="SOCKET", help="where Docker finds it, before the file's")
    made.add_argument("--state", metavar="DIR", help="what must outlast a restart is noted here, before the file's")
    made.add_argument("--log-level", choices=LOG_LEVELS, help="how much is logged, before the file's")
    made.add_argument("--version", action="version", version=f"ducc-graphdriver {version('ducc')}")
    return made


if __name__ == "__main__":
    sys.exit(main())
