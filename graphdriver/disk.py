"""The directories of layers: what `ducc.rootfs.disk` has for every engine, and what only a graph driver needs.

layers/<number>/merged    where the layer is mounted, with all that it lies on
layers/<number>/new       an archive on its way; becomes `fs` when all of it is there
layers/<number>/p/<i>     links to the published layers that it stands for, topmost first
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ducc.rootfs.disk import Disk

_NAME = "layers"
DATABASE = f"{_NAME}.sqlite"


class LayerDisk(Disk):
    """Everything below a home directory that Docker chose."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, _NAME)

    def merged(self, number: int) -> Path:
        return self.top / str(number) / "merged"

    def scratch(self, number: int) -> Path:
        """A new directory that can take the place of an empty `files`."""
        new = self.top / str(number) / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        new.chmod(0o755)  # whatever the umask: containers see it
        return new

    def link(self, number: int, targets: Sequence[Path]) -> list[Path]:
        """Short names for *targets*, in their order; mounts that were made of others do not notice."""
        directory = self._links(number)
        directory.mkdir(exist_ok=True)
        links = [directory / str(index) for index in range(len(targets))]
        for link, target in zip(links, targets, strict=True):
            _point(link, target)
        for left in set(os.listdir(directory)) - {link.name for link in links}:
            (directory / left).unlink()
        return links

    def linked(self, number: int) -> list[str]:
        """What the links lead to, topmost first."""
        directory = self._links(number)
        return [os.readlink(directory / str(index)) for index in range(len(os.listdir(directory)))]

    def _links(self, number: int) -> Path:
        return self.top / str(number) / "p"


def _point(link: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.readlink(link) == str(target):
            return
    new = link.with_name("new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(link)
