"""Docker's graph-driver protocol: its words to values, and back.

Source: the protocol as Docker 20.10 to 27 speak it; later versions have no graph-driver plugins.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ducc.errors import DuccError
from ducc.image.strictjson import Fields
from ducc.plugin import Answer, Plugin
from graphdriver.home import Home
from graphdriver.layers import RefusedCall, require_options

DOCKER_VERSIONS = "20.10 to 27; for newer ones there is ducc-snapshotter"

Status = Callable[[], list[tuple[str, str]]]


class LayersUnusable(DuccError):
    """The disk that layers are on, or the kernel that mounts them, refused."""

    retryable = True


class Calls:
    """Each method is one call."""

    def __init__(self, home: Home, status: Status) -> None:
        """*status* is what `docker info` shows."""
        self._home, self._status = home, status

    def plugin(self) -> Plugin:
        """What a socket is to serve."""
        calls: Mapping[str, Callable[[Fields], Answer]] = {
            "Init": self.init,
            "Capabilities": lambda _: {"Capabilities": {"ReproducesExactDiffs": False}},
            "Create": self.create,
            "CreateReadWrite": self.create,
            "Remove": self.remove,
            "Get": self.get,
            "Put": self.put,
            "Exists": self.exists,
            "Status": lambda _: {"Status": self._status()},
            "GetMetadata": self.metadata,
            "Cleanup": self.cleanup,
            "Diff": self.diff,
            "Changes": self.changes,
            "DiffSize": self.diff_size,
        }
        named = {f"GraphDriver.{name}": _told(call) for name, call in calls.items()}
        return Plugin(["GraphDriver"], named, {"GraphDriver.ApplyDiff": self.apply_diff})

    def init(self, fields: Fields) -> Answer:
        if fields.children("UIDMaps") or fields.children("GIDMaps"):
            raise RefusedCall("userns-remap can't be used with ducc: published files have the owners they have")
        require_options(fields.texts("Opts") or ())
        self._home.begin(_directory(fields.text("Home")))
        return {}

    def create(self, fields: Fields) -> Answer:
        self._home.driver().create(
            _id(fields), fields.text("Parent", ""), fields.text("MountLabel", ""), fields.text_map("StorageOpt")
        )
        return {}

    def remove(self, fields: Fields) -> Answer:
        self._home.driver().remove(_id(fields))
        return {}

    def get(self, fields: Fields) -> Answer:
        return {"Dir": str(self._home.driver().get(_id(fields), fields.text("MountLabel", "")))}

    def put(self, fields: Fields) -> Answer:
        self._home.driver().put(_id(fields))
        return {}

    def exists(self, fields: Fields) -> Answer:
        return {"Exists": self._home.driver().exists(_id(fields))}

    def metadata(self, fields: Fields) -> Answer:
        return {"Metadata": self._home.driver().metadata(_id(fields))}

    def cleanup(self, fields: Fields) -> Answer:
        self._home.end()
        return {}

    def diff(self, fields: Fields) -> Iterator[bytes]:
        return self._home.driver().diff(_id(fields), fields.text("Parent", ""))

    def changes(self, fields: Fields) -> Answer:
        changes = self._home.driver().changes(_id(fields), fields.text("Parent", ""))
        return {"Changes": [{"Path": os.fsdecode(change.path), "Kind": change.kind} for change in changes]}

    def diff_size(self, fields: Fields) -> Answer:
        return {"Size": self._home.driver().diff_size(_id(fields), fields.text("Parent", ""))}

    def apply_diff(self, fields: Fields, archive: BinaryIO) -> Answer:
        name, parent = fields.text("id", ""), fields.text("parent", "")
        with _disk():
            return {"Size": self._home.driver().apply(name, parent, archive)}


def _told(call: Callable[[Fields], Answer]) -> Callable[[Fields], Answer]:
    """*call*, with what the disk has against it in our words."""

    def answer(fields: Fields) -> Answer:
        with _disk():
            return call(fields)

    return answer


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise LayersUnusable(f"the layers' own files: {error}") from error


def _id(fields: Fields) -> str:
    return fields.text("ID", "")


def _directory(text: Any) -> Path:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts:
        raise RefusedCall(f"home {text[:200]!a} is not an absolute path")
    return path
