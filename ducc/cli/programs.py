"""The command lines of all programs that are installed with `ducc`, as parsers, for whoever describes them.

Programs are found by what the installation says of them, not by name, since they are written on top of this package.
The module of a program has a function `parser` or `_parser`; one that has none takes no options of its own.
"""

import argparse
import importlib
from importlib.metadata import distribution

from ducc.cli.main import whole_parser


def programs() -> dict[str, argparse.ArgumentParser]:
    """Parsers by the programs' names."""
    found = {"ducc": whole_parser()}
    for script in distribution("ducc").entry_points.select(group="console_scripts"):
        module = importlib.import_module(script.module)
        parser = getattr(module, "parser", None) or getattr(module, "_parser", None)
        if script.name not in found and parser is not None:
            found[script.name] = parser()
    return found


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Parsers of a program's commands, by name; empty for a program without any."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}
