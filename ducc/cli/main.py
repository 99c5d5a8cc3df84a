"""The command `ducc`: argv → command, error → exit status.

Every command that is no alias is a module of this package with `add_arguments(parser)` and `run(arguments) -> exit
status`; only the one that is asked for is imported.
"""

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ducc import __version__, config, logs
from ducc.errors import DuccError

COMMANDS = {
    "init": "make a repository and its keys",
    "whitelist": "renew the list of certificates that clients believe",
    "convert": "publish what wishlists ask for",
    "convert-single-image": "publish one image",
    "download-manifest": "print the manifest or index that an image name stands for",
    "get-manifest": "do the same as download-manifest",
    "loop": "keep repositories equal to wishlists, for ever",
    "status": "show what becomes of each wish",
    "prune": "un-publish what nobody wishes for any more",
    "lint": "look for faults in wishlists",
    "check-image-syntax": "show how an image reference is read",
    "images": "list the images that a repository holds",
    "prefetch": "publish what starts of an image want, so that clients fetch it ahead",
    "check": "verify a whole repository",
    "serve": "offer repositories of a local store over HTTP",
    "mount": "mount a repository",
    "umount": "unmount a repository",
    "client": "ask running mounts, or tell them what to do",
    "completion": "print what makes a shell complete command lines",
    "man-pages": "write a manual page for each program and command",
}
ALIASES = {"get-manifest": "download-manifest"}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (`docs/exit-status.md`)."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        with _everything_stays():
            arguments = _parse(words)
        logs.set_up(arguments.verbose)
        return int(arguments.run(arguments))
    except DuccError as error:
        print(f"ducc: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        return INTERRUPTED


def whole_parser() -> argparse.ArgumentParser:
    """All that the command line offers, for whoever describes it."""
    parser, _ = _parsers(COMMANDS)
    return parser


@contextmanager
def _everything_stays() -> Iterator[None]:
    """Nothing that the block makes is looked at for garbage, now or later: a fifth of the time of a short command."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _parse(words: list[str]) -> argparse.Namespace:
    wanted = [word for word in words if word in COMMANDS][:1]
    parser, subparsers = _parsers(wanted)
    for name in wanted:
        _apply_settings(subparsers[name], words)
    return parser.parse_args(words)


def _parsers(wanted: Collection[str]) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and those of all commands by name; only those that are *wanted* have all their options."""
    parser = argparse.ArgumentParser("ducc", description="Container images, published once, run anywhere.")
    parser.add_argument("--version", action="version", version=f"ducc {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subparsers = {}
    for command, text in COMMANDS.items():
        subparser = commands.add_parser(command, help=text, description=f"{text[0].upper()}{text[1:]}.")
        subparser.add_argument("--config", metavar="FILE", type=Path, help="settings, instead of options (YAML)")
        subparser.add_argument("-v", "--verbose", action="count", default=0, help="log more; twice: everything")
        if command in wanted:
            module = importlib.import_module(f"ducc.cli.{ALIASES.get(command, command).replace('-', '_')}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
        subparsers[command] = subparser
    return parser, subparsers


def _apply_settings(parser: argparse.ArgumentParser, words: list[str]) -> None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path, default=os.environ.get("DUCC_CONFIG"))
    path = finder.parse_known_args(words)[0].config
    config.set_defaults(parser, os.environ, config.read_file(Path(path)) if path else {})


if __name__ == "__main__":
    sys.exit(main())
