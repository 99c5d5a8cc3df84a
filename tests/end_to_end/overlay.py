"""An overlay of published layers, as a container runtime makes it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def overlay(layers: Sequence[Path], directory: Path, *, writable: bool = False) -> Iterator[Path]:
    """Mount *layers* (base first) over one another below the new directory *directory*; yields where.

    When *writable*, changes go to `directory/upper`. An empty local directory is the lowest layer: overlayfs wants two
    when it is read-only, and some clients give it no usable length of names.
    """
    empty, merged, upper, work = (directory / name for name in ("empty", "merged", "upper", "work"))
    for path in (empty, merged, upper, work):
        path.mkdir(parents=True)
    options = [f"lowerdir={':'.join(map(str, [*reversed(layers), empty]))}"]
    if writable:
        options += [f"upperdir={upper}", f"workdir={work}"]
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", ",".join(options), merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)
