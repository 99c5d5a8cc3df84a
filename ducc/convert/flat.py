"""The flat product: one image tree, with what apptainer needs in it, under a path that everybody can type.

Files are put into the tree, never through it: where an image has a symbolic link, or anything else that is in the
way, in place of a directory, what would have gone below it is left out.
"""

import stat
from datetime import datetime

from ducc.catalog.tree import Directory, Node, TreeEditor
from ducc.convert import apptainer
from ducc.cvmfs.entry import Entry
from ducc.image.config import ImageConfig
from ducc.publish.repository import Repository


def with_apptainer_files(image: Directory, config: ImageConfig, repository: Repository) -> Directory:
    """Return the image's tree with apptainer's files; their objects are put. Their time is the image's."""
    return _ApptainerFiles(image, config, repository).put_all()


class _ApptainerFiles:
    def __init__(self, image: Directory, config: ImageConfig, repository: Repository) -> None:
        self._editor = TreeEditor(image, repository.catalogs.open_nested)
        self._config, self._repository = config, repository
        self._time = created_seconds(config)
        self._directory = self._entry(b"", stat.S_IFDIR | 0o755, size=4096)

    def put_all(self) -> Directory:
        for path in (f"{apptainer.ROOT}/libs", *apptainer.DIRECTORIES):
            self._put_if_free(path, Directory(self._directory._replace(name=_name(path))))
        for path, data in apptainer.scripts(self._config).items():
            self._editor.put(path.encode(), self._file(path, data, 0o755), self._directory)
        for path, data in apptainer.documents(self._config).items():
            self._editor.put(path.encode(), self._file(path, data, 0o644), self._directory)
        for path in apptainer.EMPTY_FILES:
            self._put_if_free(path, self._file(path, b"", 0o644))
        for path, target in apptainer.LINKS.items():
            aim = target.encode()
            self._put_if_free(path, self._entry(_name(path), stat.S_IFLNK | 0o777, size=len(aim), symlink=aim))
        return self._editor.root

    def _put_if_free(self, path: str, node: Node) -> None:
        if self._editor.find(path.encode()) is None and self._is_reachable(path):
            self._editor.put(path.encode(), node, self._directory)

    def _is_reachable(self, path: str) -> bool:
        """Is everything above *path* a directory, or nothing yet?"""
        above = path.rpartition("/")[0]
        while above:
            if isinstance(self._editor.find(above.encode()), Entry):
                return False
            above = above.rpartition("/")[0]
        return True

    def _file(self, path: str, data: bytes, mode: int) -> Entry:
        content = self._repository.put(data).digest
        return self._entry(_name(path), stat.S_IFREG | mode, size=len(data), content=content)

    def _entry(
        self, name: bytes, mode: int, size: int = 0, symlink: bytes = b"", content: bytes | None = None
    ) -> Entry:
        return Entry(name, mode, size=size, mtime=self._time, symlink=symlink, content=content)


def _name(path: str) -> bytes:
    return path.rpartition("/")[2].encode()


def created_seconds(config: ImageConfig) -> int:
    """When the image was made, in unix seconds, by its own word; 0 if it does not say so in a way we understand."""
    try:
        return max(0, int(datetime.fromisoformat(config.created or "").timestamp()))
    except (ValueError, OverflowError, OSError):
        return 0
