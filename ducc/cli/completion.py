"""Print what makes a shell complete command lines.

bash: ducc completion bash > /etc/bash_completion.d/ducc       zsh: ducc completion zsh > DIR_OF_fpath/_ducc
fish: ducc completion fish > ~/.config/fish/completions/ducc.fish
"""

import argparse
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.add_argument("--program", default="ducc", metavar="NAME", help="another program than ducc: ducc-…")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 printed, 2 no such program."""
    import shtab

    from ducc.cli.programs import commands, programs
    from ducc.errors import BadInput

    known = programs()
    if arguments.program not in known:
        raise BadInput(f"--program {arguments.program}: there are {', '.join(known)}")
    parser = known[arguments.program]
    for one in (parser, *commands(parser).values()):
        _complete_paths(one)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Options that take a path offer files, or directories."""
    import shtab

    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
