"""The program: containerd's snapshotter for published images, on a unix socket.

Exit status: 0 when a signal stopped it, 2 bad settings, 110 its files can't be relied on, 111 its socket is taken.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ducc import __version__, logs
from ducc.errors import BadInput, DuccError
from ducc.rootfs.settings import LOG_LEVELS
from snapshotter.settings import DEFAULT_CONFIG, Settings, read_settings

if TYPE_CHECKING:
    from snapshotter.calls import Snapshotter
    from snapshotter.metrics import Metrics

log = logging.getLogger("ducc.snapshotter")

_ENDINGS = (signal.SIGTERM, signal.SIGINT)
_THREADS = 16
_GRACE_SECONDS = 5.0  # for calls that were begun when a signal came


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        options = {"address": arguments.address, "root": arguments.root, "log-level": arguments.log_level}
        settings = read_settings(arguments.config, options)
        logs.set_up(LOG_LEVELS[settings.log_level], as_json=settings.log_json)
        with ExitStack() as opened:
            run(settings, opened)
    except DuccError as error:
        print(f"ducc-snapshotter: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(settings: Settings, opened: ExitStack) -> None:
    """Answer calls until SIGTERM or SIGINT; what it holds meanwhile is put on *opened*."""
    from snapshotter.metrics import Metrics

    opened.callback(os.umask, os.umask(0o077))
    opened.enter_context(_signals_held())
    metrics = Metrics()
    snapshotter = _snapshotter(settings, metrics, opened)
    snapshotter.cleanup()
    if settings.metrics_file is not None:
        _keep_written(metrics, settings.metrics_file, opened)
    _answer(settings.address, snapshotter, metrics, opened)
    named = ", ".join(f"{repository.fqrn} at {repository.mountpoint}" for repository in settings.repositories)
    log.info("ready: address=%s root=%s repositories=%s", settings.address, settings.root, named)
    signal.sigwait(_ENDINGS)


def _snapshotter(settings: Settings, metrics: "Metrics", opened: ExitStack) -> "Snapshotter":
    from ducc.rootfs.disk import Disk
    from ducc.rootfs.published import PublishedLayers
    from ducc.rootfs.state import only_one
    from snapshotter.calls import Snapshotter
    from snapshotter.store import Store

    disk = Disk(settings.root, "snapshots")
    opened.enter_context(only_one(settings.root))
    store = Store(disk.database)
    opened.callback(store.close)
    layers = PublishedLayers(settings.repositories, settings.deadline_seconds)
    return Snapshotter(store, disk, layers, time.time_ns, metrics.decided)


def _answer(address: Path, snapshotter: "Snapshotter", metrics: "Metrics", opened: ExitStack) -> None:
    """Take calls at *address* until *opened* is closed."""
    import grpc

    from ducc.unixsocket import SocketTaken, remove_stale
    from snapshotter import service
    from snapshotter.entrance import Entrance

    inner = address.with_name(address.name + ".grpc")
    entrance = Entrance(address, inner)
    opened.callback(entrance.close)
    remove_stale(inner)
    server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="call"))
    server.add_generic_rpc_handlers((service.handler(snapshotter, metrics.called),))
    try:
        server.add_insecure_port(f"unix:{inner}")
    except RuntimeError as error:
        raise SocketTaken(f"can't listen at {inner}: {error}") from error
    opened.callback(lambda: server.stop(_GRACE_SECONDS).wait())
    server.start()
    entrance.serve()


def _keep_written(metrics: "Metrics", path: Path, opened: ExitStack) -> None:
    ended = threading.Event()
    opened.callback(ended.set)
    try:
        metrics.keep_written(path, ended)
    except OSError as error:
        raise BadInput(f"metrics-file {path}: {error.strerror}") from error


@contextmanager
def _signals_held() -> Iterator[None]:
    """No thread that is started in the block is interrupted by the signals that end the program; one waits for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ducc-snapshotter", description="Let containerd start published images without pulling their layers."
    )
    parser.add_argument("--config", metavar="FILE", type=Path, default=DEFAULT_CONFIG, help="settings (%(default)s)")
    parser.add_argument("--address", metavar="SOCKET", help="where containerd finds it, before the file's")
    parser.add_argument("--root", metavar="DIR", help="where snapshots are kept, before the file's")
    parser.add_argument("--log-level", choices=LOG_LEVELS, help="how much is logged, before the file's")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


if __name__ == "__main__":
    sys.exit(main())
