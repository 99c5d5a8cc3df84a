"""Write a manual page for each program and command, from what `--help` says."""

import argparse
from pathlib import Path

_SECTION = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="where to: DIR/man1/ducc.1, ducc-convert.1 …")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 written, 2 the directory can't be used."""
    from ducc.cli.programs import commands, programs
    from ducc.errors import BadInput

    directory = arguments.directory / f"man{_SECTION}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for program, parser in programs().items():
            for name, command in commands(parser).items():
                _write(directory / f"{program}-{name}.{_SECTION}", command)
            _write(directory / f"{program}.{_SECTION}", parser)
    except OSError as error:
        raise BadInput(f"{directory}: {error.strerror}") from error
    return 0


def _write(file: Path, parser: argparse.ArgumentParser) -> None:
    from argparse_manpage.manpage import Manpage

    from ducc import __version__

    about = {
        "project_name": "ducc",
        "version": __version__,
        "description": parser.description,
        "manual_title": "ducc",
        "manual_section": _SECTION,
        "prog": parser.prog,
    }
    page = str(Manpage(parser, about, format="single-commands-section"))
    file.write_text(page.replace(f".TH {parser.prog.upper()} ", f".TH {file.stem.upper()} ", 1))
