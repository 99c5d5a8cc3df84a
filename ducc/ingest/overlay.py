"""What layer trees say to overlayfs, and image content never may.

A whiteout is a character device 0:0, and an opaque directory bears an attribute, in the spelling for privileged and
in that for rootless mounts. Source: the kernel's documentation of overlayfs.
"""

import stat

from ducc.cvmfs import xattrs
from ducc.cvmfs.entry import Entry

_OPAQUE = {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}


def whiteout(name: bytes) -> Entry:
    """The entry that hides *name* in all layers below."""
    return Entry(name, stat.S_IFCHR)


def is_opaque(directory: Entry) -> bool:
    """Is it marked by us? That the words stand somewhere in an image's own attribute means nothing."""
    return b"overlay.opaque" in directory.xattrs and not _OPAQUE.keys().isdisjoint(xattrs.decode(directory.xattrs))


def opaque(directory: Entry) -> Entry:
    """The same directory, hiding all that layers below have put into it."""
    own = sorted(xattrs.decode(directory.xattrs).items())[: xattrs.LIMIT - len(_OPAQUE)]  # the last ones must go
    return directory._replace(xattrs=xattrs.encode({**dict(own), **_OPAQUE}.items()))


def not_opaque(directory: Entry) -> Entry:
    """The same directory as a container sees it."""
    if not is_opaque(directory):
        return directory
    kept = {key: value for key, value in xattrs.decode(directory.xattrs).items() if key not in _OPAQUE}
    return directory._replace(xattrs=xattrs.encode(kept.items()))
