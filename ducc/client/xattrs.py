"""Extended attributes as a program on the mount sees them: those stored with the entry, and none of our own yet."""

from ducc.cvmfs.entry import Entry
from ducc.cvmfs.xattrs import decode

_ROOT_ONLY = b"trusted."


def visible_names(entry: Entry, uid: int) -> list[bytes]:
    """The names that the user *uid* may see; the kernel filters nothing."""
    return [name for name in decode(entry.xattrs) if uid == 0 or not name.startswith(_ROOT_ONLY)]


def value(entry: Entry, name: bytes) -> bytes | None:
    """An attribute's value, if the entry has it. Who may read it is the kernel's to say."""
    return decode(entry.xattrs).get(name) if entry.xattrs else None
