"""Show a published repository in a directory, read-only; files are fetched when they are read."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from ducc.cli.caches import default_cache
from ducc.errors import BadInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from ducc.client.background import Start, Work
    from ducc.client.blacklist import Blacklist
    from ducc.client.opening import MountSettings
    from ducc.client.parameters import Parameters
    from ducc.storage.base import ReadableStore

_GIBIBYTE = 1 << 30
_DEFAULT_LIMIT_GIB = 4.0
_MOST_IDLE_SECONDS = 1 << 31
_PROGRAM = (sys.executable, "-P", "-m", "ducc.cli.main")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fqrn", metavar="FQRN", help="the repository")
    parser.add_argument("directory", metavar="DIR", type=Path, help="where to show it; an existing directory")
    parser.add_argument(
        "--all", metavar="DIR", type=Path, action=_Instead,
        help="instead of FQRN and DIR: show each configured repository below DIR when it is first touched",
    )  # fmt: skip
    parser.add_argument(
        "--idle", metavar="SECONDS", type=_seconds, default=1200,
        help="with --all: unmount what nobody has used for so long (%(default)s; 0: never)",
    )  # fmt: skip
    parser.add_argument("--url", help="the repository's URL: http://HOST/cvmfs/FQRN")
    parser.add_argument("--storage", metavar="URL", help="without --url: read a local store, file:///DIR")
    parser.add_argument(
        "--etc", metavar="DIR", type=Path, default=Path("/etc/cvmfs"),
        help="without --url and --storage: where the client's configuration lies (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--public-key", metavar="FILE", type=Path, action="append",
        help="public half of the master key; may be repeated (without --url and --storage: the configuration's)",
    )  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", type=Path, help="where to keep what was read")
    parser.add_argument("--cache-limit", metavar="GIB", type=float, help="its largest size (4, or the configuration's)")
    parser.add_argument(
        "--no-xattrs", action="store_true",
        help="nothing has extended attributes: a second mount, for the plugins of container engines",
    )  # fmt: skip
    parser.add_argument("--no-prefetch", action="store_true", help="fetch nothing ahead that published lists name")
    parser.add_argument("--foreground", action="store_true", help="stay, and log to the terminal")
    # How a process that is to succeed another one is started; see `ducc.client.renewal`.
    parser.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--line", type=int, help=argparse.SUPPRESS)
    # Below an automounter's directory nobody else's processes may be; see `ducc.client.autofs`.
    parser.add_argument("--same-session", action="store_true", help=argparse.SUPPRESS)


class _Instead(argparse.Action):
    """An option that takes the place of the positional arguments."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        for action in parser._actions:
            action.required = False


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _MOST_IDLE_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted: seconds, at most {_MOST_IDLE_SECONDS}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 mounted (in the foreground: and unmounted again), else the failure's."""
    from ducc.client.background import Start, go_on, in_background

    if arguments.all:
        return _mount_all(arguments)
    parameters = None if arguments.url or arguments.storage else _parameters(arguments)
    fqrn = _name(arguments, parameters)
    cache = (arguments.cache or (parameters.cache_directory if parameters else default_cache())).absolute()
    directory = Path(os.path.realpath(arguments.directory))
    again = _again(arguments, fqrn, directory)
    work = _mount(arguments, parameters, fqrn, directory, cache, [*again, "--trial"])
    if arguments.foreground:
        work(Start(lambda: print(f"{fqrn} is mounted at {directory}", flush=True)))
    elif arguments.trial:
        work(Start(lambda: None))
    elif arguments.line is not None:
        return go_on(work, arguments.line, [*again, "--line"])
    else:
        _make_directory(cache)
        new_session = not arguments.same_session
        in_background(work, cache / f"{fqrn}.log", [*again, "--line"], new_session=new_session)
    return 0


def _mount_all(arguments: argparse.Namespace) -> int:
    """Mount what is touched; everything runs in the session of the process that answers the kernel."""
    from ducc import logs
    from ducc.client.automount import Automount, run_automount
    from ducc.client.background import Start, in_background

    if arguments.fqrn or arguments.url or arguments.storage or arguments.public_key:
        raise BadInput(
            "--all mounts what the configuration says: wanted besides are --etc, --cache, --idle, --no-xattrs and "
            "--no-prefetch only"
        )
    if os.geteuid() != 0:
        raise BadInput("--all needs root: only root may use the kernel's automounter")
    directory = Path(os.path.realpath(arguments.all))
    if not directory.is_dir():
        raise BadInput(f"{directory} is not a directory")

    def mount(fqrn: str, place: Path) -> list[str]:
        return [*_again(arguments, fqrn, place), "--same-session"]

    def unmount(fqrn: str, place: Path) -> list[str]:
        return [*_PROGRAM, "umount", str(place)]

    def work(start: "Start") -> None:
        logs.set_up(max(arguments.verbose, 0 if sys.stderr.isatty() else 1))
        run_automount(Automount(directory, arguments.etc.absolute(), mount, unmount, arguments.idle), start)

    if arguments.foreground:
        os.setpgid(0, 0)
        work(Start(lambda: print(f"what is configured is shown at {directory}", flush=True)))
    else:
        cache = (arguments.cache or default_cache()).absolute()
        _make_directory(cache)
        in_background(work, cache / "automount.log")
    return 0


def _again(arguments: argparse.Namespace, fqrn: str, directory: Path) -> list[str]:
    """The command that does with a repository what *arguments* say, wherever it is started."""
    words = [*_PROGRAM, "mount", fqrn, str(directory), *["-v"] * arguments.verbose]
    for name in ("url", "storage", "cache_limit"):
        if getattr(arguments, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    if arguments.cache:
        words += ["--cache", str(arguments.cache.absolute())]
    words += [f"--{name}" for name in ("no-xattrs", "no-prefetch") if getattr(arguments, name.replace("-", "_"))]
    return [*words, "--etc", str(arguments.etc.absolute()), *(f"--public-key={file}" for file in _keys(arguments))]


def _keys(arguments: argparse.Namespace) -> list[Path]:
    """The files that are named by options, or by a setting, which may be a single one."""
    named = arguments.public_key or ()
    return [Path(file).absolute() for file in (named if isinstance(named, (list, tuple)) else [named])]


def _name(arguments: argparse.Namespace, parameters: "Parameters | None") -> str:
    from ducc.cvmfs.fqrn import require_fqrn

    if parameters:
        return parameters.fqrn
    if not arguments.public_key:
        raise BadInput("whom to trust? wanted with --url or --storage: --public-key")
    return require_fqrn(arguments.fqrn)


def _parameters(arguments: argparse.Namespace) -> "Parameters":
    """What the configuration files say."""
    from ducc.client.configuration import read_configuration
    from ducc.client.parameters import Parameters

    configuration = read_configuration(arguments.fqrn, arguments.etc.absolute())
    return Parameters.of(configuration, os.getuid(), os.getgid(), os.environ)


def _mount(
    arguments: argparse.Namespace,
    parameters: "Parameters | None",
    fqrn: str,
    directory: Path,
    cache: Path,
    trial: list[str],
) -> "Work":
    """What the mounting process is to do; everything heavy is imported there, after the fork."""

    def work(start: "Start") -> None:
        from dataclasses import replace

        from ducc import logs
        from ducc.client.daemon import run_mount
        from ducc.client.opening import MountSettings
        from ducc.client.renewal import Renewal

        logs.set_up(max(arguments.verbose, 0 if sys.stderr.isatty() else 1))
        read = _Read.of(arguments, parameters)
        if parameters:
            settings = _configured(parameters, arguments, directory, cache, read)
        else:
            limit = _limit(arguments, int(_DEFAULT_LIMIT_GIB * _GIBIBYTE))
            settings = MountSettings(fqrn, directory, _store(arguments, fqrn), read.master_keys(), cache, limit)
        settings = replace(
            settings,
            with_xattrs=not arguments.no_xattrs,
            prefetch=settings.prefetch and not arguments.no_prefetch,
        )
        if not arguments.trial:
            run_mount(settings, start, Renewal(start, trial, lambda: _Read.now(arguments) != read))

    return work


class _Read(NamedTuple):
    """All that was read of files, to be compared with what stands there later."""

    parameters: "Parameters | None"
    keys: list[bytes]
    blacklist: "Blacklist"

    @classmethod
    def of(cls, arguments: argparse.Namespace, parameters: "Parameters | None") -> "_Read":
        from ducc.client.blacklist import Blacklist

        files = _keys(arguments) or (parameters.key_files if parameters else ())
        blacklist = Blacklist.read(parameters.blacklist) if parameters and parameters.blacklist else Blacklist()
        return cls(parameters, list(map(_read, files)), blacklist)

    def master_keys(self) -> "list[RSAPublicKey]":
        from ducc.cvmfs.signature import load_master_public_key

        return list(map(load_master_public_key, self.keys))

    @classmethod
    def now(cls, arguments: argparse.Namespace) -> "_Read":
        return cls.of(arguments, None if arguments.url or arguments.storage else _parameters(arguments))


def _configured(
    parameters: "Parameters", arguments: argparse.Namespace, directory: Path, cache: Path, read: _Read
) -> "MountSettings":
    from ducc.client.network.store import NetworkStore
    from ducc.client.opening import MountSettings

    if not arguments.trial:
        parameters.tell()
    return MountSettings(
        fqrn=parameters.fqrn,
        mountpoint=directory,
        store=NetworkStore(parameters.network),
        master_keys=read.master_keys(),
        cache_directory=cache,
        cache_limit_bytes=_limit(arguments, parameters.cache_limit_bytes),
        preloaded=parameters.preloaded,
        view=parameters.view,
        pin=parameters.pin,
        blacklist=read.blacklist,
        max_ttl_seconds=parameters.max_ttl_seconds,
        auto_update=parameters.auto_update,
        notices_url=parameters.notices_url,
        attributes_listed=parameters.attributes_listed,
        prefetch=parameters.prefetch,
    )


def _limit(arguments: argparse.Namespace, otherwise: int | None) -> int | None:
    return otherwise if arguments.cache_limit is None else int(arguments.cache_limit * _GIBIBYTE)


def _store(arguments: argparse.Namespace, fqrn: str) -> "ReadableStore":
    from ducc.client.network.settings import NetworkSettings
    from ducc.client.network.store import NetworkStore
    from ducc.storage.local import LocalStore
    from ducc.storage.open import local_directory

    if arguments.url is None:
        return LocalStore(local_directory(arguments.storage, fqrn))
    parts = urlsplit(arguments.url)
    if parts.scheme in ("http", "https") and parts.hostname:
        proxies = ((_environments_proxy(parts.scheme, parts.hostname),),)
        return NetworkStore(NetworkSettings((arguments.url.rstrip("/"),), proxies, follow_redirects=True))
    if parts.scheme == "file" and not parts.netloc:
        return LocalStore(Path(unquote(parts.path)))
    raise BadInput(f"--url {arguments.url!r}: wanted http://HOST/cvmfs/{fqrn}, https:// or file:///DIR/{fqrn}")


def _environments_proxy(scheme: str, host: str) -> str:
    """What `http_proxy` and its kin say, for whoever has no configuration."""
    import urllib.request

    from ducc.client.network.settings import DIRECT

    proxy = urllib.request.getproxies().get(scheme)
    if proxy is None or urllib.request.proxy_bypass(host):
        return DIRECT
    return proxy if "://" in proxy else f"http://{proxy}"


def _make_directory(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInput(f"cache {cache}: {error.strerror}") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadInput(f"public key {file}: {error.strerror}") from error
