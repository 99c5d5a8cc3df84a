"""Settings: what stands in the configuration file or the environment instead of on the command line.

A setting has the name of its option: `--storage` is `storage:` in the file and `DUCC_STORAGE` in the environment. The
command line wins over the environment, the environment over the file.
"""

import argparse
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ducc.errors import BadInput

PREFIX = "DUCC_"


def read_file(path: Path) -> dict[str, Any]:
    """Return what a configuration file (YAML, one mapping of setting to value) says. Not everybody may change it."""
    import yaml  # only where there is a file: a mount keeps in memory what it once imported

    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise BadInput(f"{path}: everybody may change it: chmod o-w it")
            values = yaml.safe_load(file)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: can't be used as configuration: {reason}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise BadInput(f"{path}: a configuration is one mapping of setting to value")
    return {name.replace("-", "_"): value for name, value in values.items()}


def set_defaults(parser: argparse.ArgumentParser, environ: Mapping[str, str], file: Mapping[str, Any]) -> None:
    """Let options of *parser* have the values that the environment and the file give them."""
    for action in parser._actions:
        if not action.option_strings or action.dest == "help":
            continue
        value = environ.get(PREFIX + action.dest.upper(), file.get(action.dest))
        if value is None:
            continue
        action.default = _value(action, value)
        action.required = False


def _value(action: argparse.Action, value: Any) -> Any:
    if isinstance(action, argparse._AppendAction):  # an option that may be repeated
        return [_converted(action, one) for one in (value if isinstance(value, list) else [value])]
    if action.nargs == 0:
        return str(value).lower() in ("1", "yes", "true", "on")
    return _converted(action, value)


def _converted(action: argparse.Action, value: Any) -> Any:
    if action.type is None or not callable(action.type):
        return str(value)
    try:
        return action.type(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise BadInput(f"setting {action.dest}: {value!r} is not usable: {error}") from error
