"""`python -m tests.images build|push|list [NAME …]`: the family of test images, by hand."""

import argparse
import sys
from pathlib import Path

import pytest

from tests.images import Built, build, names
from tests.registry import Registry


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.images")
    parser.add_argument("--registry", metavar="HOST:PORT", help="where `push` pushes to, by plain http")
    parser.add_argument("action", choices=("build", "push", "list"))
    parser.add_argument("name", nargs="*", help=f"of {', '.join(names())}; all if none is given")
    args = parser.parse_args()
    if args.action == "push" and not args.registry:
        parser.error("push needs --registry")
    for name in args.name or names():
        print(name) if args.action == "list" else show(build(name), args.registry)
    return 0


def show(image: Built, registry: str | None) -> None:
    print(
        f"{image.name:<13}{image.layers:>2} layers {image.files:>6} entries {image.size / 1e6:>6.0f} MB,"
        f" built in {image.seconds:.1f} s",
        flush=True,
    )
    if registry:
        print(image.push(Registry(registry, Path(), Path())), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))
