"""All that can be wrong with a repository; each has an identifier for ever, for scripts to rely on.

An *error* means that clients see something wrong, or will, or that collection or copying loses something. A *warning*
is worth knowing and may be right.
"""

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Fault(Enum):
    """What can be wrong, how bad it is, and the rule that was broken."""

    MANIFEST_MISSING = Severity.ERROR, "a repository has a manifest"
    MANIFEST_MALFORMED = Severity.ERROR, "the manifest has all its fields, once, in the right form"
    MANIFEST_REPOSITORY = Severity.ERROR, "the manifest is of this repository"
    MANIFEST_SIGNATURE = Severity.ERROR, "the manifest is signed by the certificate that it names"
    MANIFEST_SIZE = Severity.ERROR, "the manifest gives the root catalog's size"
    MANIFEST_REVISION = Severity.ERROR, "the root catalog's revision is the manifest's"
    CERTIFICATE_MISSING = Severity.ERROR, "the manifest names a certificate"
    CERTIFICATE_UNUSABLE = Severity.ERROR, "the certificate object is a certificate with an RSA key"
    CERTIFICATE_UNLISTED = Severity.ERROR, "the certificate is on the whitelist"
    WHITELIST_MISSING = Severity.ERROR, "a repository has a whitelist"
    WHITELIST_MALFORMED = Severity.ERROR, "the whitelist is one, in a form that clients understand"
    WHITELIST_REPOSITORY = Severity.ERROR, "the whitelist is of this repository"
    WHITELIST_SIGNATURE = Severity.ERROR, "the whitelist is signed by a trusted master key"
    WHITELIST_EXPIRED = Severity.ERROR, "the whitelist has not expired"
    WHITELIST_EXPIRES = Severity.WARNING, "the whitelist is good for some days more"
    MASTER_KEY_UNKNOWN = Severity.WARNING, "without a master key the whitelist's signature can't be judged"
    METAINFO_MALFORMED = Severity.ERROR, "the metainfo is a JSON object"
    HISTORY_UNREADABLE = Severity.ERROR, "the tag database opens and has the right schema"
    HISTORY_REPOSITORY = Severity.ERROR, "the tag database is of this repository"
    HISTORY_BRANCH = Severity.ERROR, "branches have parents and tags, tags have branches, without cycles"
    HISTORY_TRUNK = Severity.WARNING, "the tag `trunk` is the manifest's root"
    REFLOG_MISSING = Severity.WARNING, "a reflog lists all roots; without it nothing can be collected"
    REFLOG_UNREADABLE = Severity.ERROR, "the reflog opens and has the right schema"
    REFLOG_REPOSITORY = Severity.ERROR, "the reflog is of this repository"
    REFLOG_CHECKSUM = Severity.WARNING, "the reflog is the one of the manifest; the next publication mends it"
    REFLOG_UNLISTED = Severity.ERROR, "the reflog lists what the manifest names"
    REFLOG_TREE_UNLISTED = Severity.WARNING, "the reflog lists all trees; others can never be collected"

    OBJECT_MISSING = Severity.ERROR, "an object that is referred to is there"
    OBJECT_UNREADABLE = Severity.ERROR, "an object can be read, and inflates"
    OBJECT_DAMAGED = Severity.ERROR, "an object's bytes are those that gave it its name"
    OBJECT_SIZE = Severity.ERROR, "an object has as many bytes as its row says"

    CATALOG_UNREADABLE = Severity.ERROR, "a catalog is a sound SQLite file, without views and triggers"
    CATALOG_SCHEMA = Severity.ERROR, "a catalog has the tables, columns and counters of its schema"
    CATALOG_INDEX = Severity.WARNING, "a catalog has an index by parent, or listings are slow"
    CATALOG_HEAVY = Severity.WARNING, "a catalog has at most 200 000 rows"
    CATALOG_SIZE = Severity.ERROR, "a catalog has as many bytes as where it is mounted says"
    CATALOG_PREFIX = Severity.ERROR, "a nested catalog's prefix is its path, a tree has none"
    CATALOG_ROOT = Severity.ERROR, "a catalog has a root row, a directory with its own name"
    CATALOG_ROOT_FLAG = Severity.ERROR, "the root row of a nested catalog, and no other, is flagged as such"
    CATALOG_COUNTER = Severity.ERROR, "counters say what the catalog, or those nested in it, contain"

    ENTRY_NAME = Severity.ERROR, "names are not empty, '.' or '..', without '/' and NUL, of at most 255 bytes"
    ENTRY_KEY = Severity.ERROR, "a row's key is that of its path"
    ENTRY_DUPLICATE = Severity.ERROR, "a path has one row"
    ENTRY_PARENT = Severity.ERROR, "a row's parent is a directory of the same catalog"
    ENTRY_KIND = Severity.ERROR, "flags and mode agree on what an entry is"
    ENTRY_FLAGS = Severity.ERROR, "flags for contents are on regular files only, and known"
    ENTRY_SIZE = Severity.ERROR, "sizes are not negative"
    ENTRY_TIME = Severity.ERROR, "times are whole seconds, and nanoseconds below one second"
    ENTRY_OWNER = Severity.ERROR, "owners are numbers of 32 bits"
    ENTRY_HASH = Severity.ERROR, "only regular files have an object"
    ENTRY_SYMLINK = Severity.ERROR, "symbolic links, and nothing else, have a target"
    ENTRY_LINKCOUNT = Severity.ERROR, "no link count is 0"
    ENTRY_XATTR = Severity.ERROR, "extended attributes can be decoded"
    DIRECTORY_LINKCOUNT = Severity.ERROR, "a directory's link count is 2 and one for each sub-directory"
    FILE_HASH = Severity.ERROR, "a regular file that is not in chunks has an object"
    SYMLINK_SIZE = Severity.ERROR, "a symbolic link's size is its target's length"
    SPECIAL_SIZE = Severity.ERROR, "pipes and sockets have size 0"
    LINK_GROUP = Severity.ERROR, "names that share an inode are in one directory, all there, and alike"
    CHUNK_MISSING = Severity.ERROR, "a file in chunks has chunks"
    CHUNK_GAP = Severity.ERROR, "chunks follow one another from offset 0"
    CHUNK_SUM = Severity.ERROR, "chunks have as many bytes as their file"
    CHUNK_HASH = Severity.ERROR, "a chunk has an object"
    CHUNK_STRAY = Severity.ERROR, "chunks belong to a file in chunks"
    MARKER_MISSING = Severity.ERROR, "a nested catalog's root has a file .cvmfscatalog"
    MARKER_MISPLACED = Severity.ERROR, "there is a .cvmfscatalog nowhere else"

    MOUNTPOINT_UNREGISTERED = Severity.ERROR, "a mountpoint says which catalog continues there"
    MOUNTPOINT_UNFLAGGED = Severity.ERROR, "where a catalog continues, there is a mountpoint"
    MOUNTPOINT_TWICE = Severity.ERROR, "one catalog continues at one place"
    MOUNTPOINT_CHILDREN = Severity.ERROR, "nothing is below a mountpoint in the same catalog"
    NESTED_ROOT_ROW = Severity.ERROR, "a mountpoint repeats the root row of the catalog nested there"
    BIND_ROOT_ROW = Severity.ERROR, "a mountpoint repeats the root row of the tree bound there"
    BIND_UNTAGGED = Severity.ERROR, "a bound tree has a tag, or collection and copying lose it"
    BIND_CROWDED = Severity.WARNING, "a catalog has at most 1 000 binds, or clients are slow"

    @property
    def id(self) -> str:
        """The identifier: `entry-parent`."""
        return self.name.lower().replace("_", "-")

    @property
    def severity(self) -> Severity:
        return self.value[0]

    @property
    def rule(self) -> str:
        return self.value[1]


class Finding(NamedTuple):
    """A fault, and where: *path* is the entry's path in the repository, or the name of what is not in a path."""

    fault: Fault
    path: bytes
    text: str

    @property
    def shown_path(self) -> str:
        """The path as it may be shown on a terminal."""
        text = self.path.decode("utf-8", "backslashreplace")
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text) or "/"


Report = Callable[[Finding], None]
