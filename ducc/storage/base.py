"""The contract of every store that holds a repository.

A repository is objects, which are named by their content and never change, and a handful of *root files* (names that
begin with `.cvmfs`), of which one, the manifest `.cvmfspublished`, says which objects are the repository. Whoever
writes follows one order, and the store keeps it: an object is visible only when all that was put before it is.
"""

from contextlib import AbstractContextManager
from typing import Protocol

from ducc.cvmfs.objectname import ObjectName
from ducc.errors import DuccError

MANIFEST = ".cvmfspublished"
REFLOG = ".cvmfsreflog"
WHITELIST = ".cvmfswhitelist"
MASTER_REPLICA = ".cvmfs_master_replica"


class StoreUnavailable(DuccError):
    """The store did not answer, or not to the end; what was written may be there or not. Repeating is safe."""

    exit_code = 30
    retryable = True


class StoreRefused(DuccError):
    """The store answered no (full, read-only, forbidden): nothing was written."""

    exit_code = 31


class ObjectMissing(DuccError):
    """The store has no object of that name: a definite answer, not a fault of the store."""

    exit_code = 32

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: no such object in the store")


class HeadMoved(DuccError):
    """Another publisher was faster: read the new head, apply the same changes to it, try again."""

    exit_code = 33
    retryable = True


class Claimed(DuccError):
    """Somebody else does, on this repository, what only one may do at a time."""

    exit_code = 34
    retryable = True

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f"another `ducc {name}` works on this repository{f' ({holder})' if holder else ''}; stop it first"
        )


class ReadableStore(Protocol):
    """What a reader needs: bytes by name. Nothing is verified here; whoever uses the bytes does that."""

    def get(self, name: ObjectName) -> bytes:
        """Return the stored bytes. Raises `ObjectMissing` or `StoreUnavailable`."""

    def read_file(self, name: str) -> bytes | None:
        """Return a root file's bytes, or None when there is none of that name."""


class ObjectStore(ReadableStore, Protocol):
    """What a publisher needs besides. All methods may be called from any thread."""

    def exists(self, name: ObjectName) -> bool:
        """Is the object there, or put by this store object and on its way?"""

    def size(self, name: ObjectName) -> int:
        """Number of stored bytes. Raises `ObjectMissing`."""

    def put(self, name: ObjectName, data: bytes | bytearray | memoryview) -> None:
        """Take the object in. It is readable through this store object at once, and by all after `flush` at the latest.

        Returning means "the object will be there", not "this call wrote it".
        """

    def flush(self) -> None:
        """Make all that was put durable, then visible, in the order of the puts."""

    def write_file(self, name: str, data: bytes) -> None:
        """Replace a root file other than the manifest, durably and at once."""

    def replace_head(self, expected: bytes | None, manifest: bytes, reflog: bytes) -> None:
        """Flush, then swap the manifest if it still is *expected* (None: there is none); the reflog goes first.

        Raises `HeadMoved` when the manifest is another by now; then nothing but objects was written.
        """

    def claim(self, name: str) -> AbstractContextManager[None]:
        """Be the only one who has *name* (letters, digits, `-`) inside the context, wherever the store is shared.

        A claim ends with its process, however that ends. Raises `Claimed` at once when somebody else has it.
        """

    def session(self) -> AbstractContextManager[None]:
        """Hold whatever the store needs while writing; what was put and not flushed is dropped at the end."""
