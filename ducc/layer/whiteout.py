"""What the names in a layer mean: a path, something hidden below, or nothing that may be published.

A layer hides what lower layers hold by empty files with special names (OCI image-spec, layer.md, "Whiteouts"). Names
that only aufs or a CernVM-FS publisher gives a meaning are left out. Pure: no I/O.
"""

from enum import Enum

from ducc.layer.block import Refusal

MAX_NAME = 255
MAX_PATH = 4096

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"

_AUFS_PREFIX = b".wh..wh."
_CONTROL_PREFIX = b".cvmfs"  # .cvmfscatalog, .cvmfsdirtab, .cvmfsgraft-…: they steer who publishes or mounts


class Meaning(Enum):
    """What a name in a layer stands for."""

    PATH = "path"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque directory"
    AUFS = "aufs leftover"
    CONTROL = "CernVM-FS control name"


def read_name(name: bytes) -> tuple[Meaning, bytes]:
    """What the member *name* stands for, and the path it is about (see `normal_path` for its form).

    For a whiteout that is the path it hides, for an opaque marker the directory.
    """
    path = normal_path(name)
    if b"/." not in path:
        return Meaning.PATH, path
    components = path[1:].split(b"/")
    *parents, last = components
    if any(component.startswith(_AUFS_PREFIX) for component in components) and last != OPAQUE_MARKER:
        return Meaning.AUFS, path
    if any(parent.startswith(WHITEOUT_PREFIX) for parent in parents):
        raise Refusal("its directory is a whiteout")
    hidden = last.removeprefix(WHITEOUT_PREFIX)
    if any(component.startswith(_CONTROL_PREFIX) for component in (*parents, hidden)):
        return Meaning.CONTROL, path
    if last == OPAQUE_MARKER:
        return Meaning.OPAQUE, path[: -len(last) - 1]
    if last == hidden:
        return Meaning.PATH, path
    if hidden in (b"", b".", b".."):
        raise Refusal("a whiteout of nothing")
    return Meaning.WHITEOUT, path[: -len(last)] + hidden


def normal_path(name: bytes) -> bytes:
    """*name* as a path from the layer's root: `b""` is the root itself, everything else like `b"/a/b"`.

    Refused is what would leave the layer (`..`), hold a NUL, or be too long for any file system.
    """
    path = b"/" + name.removeprefix(b"./").strip(b"/")
    if b"/." in path or b"//" in path or path == b"/":
        components = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in components:
            raise Refusal("its name has a component '..'")
        path = b"".join(b"/" + component for component in components)
    if len(path) > MAX_NAME:
        _check_lengths(path)
    if b"\0" in path:
        raise Refusal("its name has a NUL")
    return path


def _check_lengths(path: bytes) -> None:
    if len(path) > MAX_PATH:
        raise Refusal(f"its name has more than {MAX_PATH} bytes")
    *parents, last = path.split(b"/")
    if any(len(component) > MAX_NAME for component in (*parents, last.removeprefix(WHITEOUT_PREFIX))):
        raise Refusal(f"its name has a component of more than {MAX_NAME} bytes")
