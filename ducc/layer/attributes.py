"""Extended attributes: which of those that a layer brings are published. Pure: no I/O.

Kept are `user.*` and file capabilities. Left out, and counted, is what would steer the overlayfs that a layer is
mounted with, what belongs to the host that built the image, and what the repository format can't hold. Refused is
what no file system holds; the runtimes fail on it too.
"""

from collections import Counter
from collections.abc import Mapping

from ducc.layer.block import Refusal

MAX_COUNT, MAX_NAME, MAX_VALUE = 1000, 255, 64 << 10  # above: refused
STORED_COUNT, STORED_VALUE = 255, 255  # above: left out

_RECORD = b"SCHILY.xattr."
_LIBARCHIVE_RECORD = b"LIBARCHIVE.xattr."
_FOREIGN = (b"user.overlay.", b"trusted.overlay.", b"trusted.", b"security.", b"system.")


def kept_attributes(records: Mapping[bytes, bytes], dropped: Counter[str]) -> tuple[tuple[bytes, bytes], ...]:
    """The attributes in pax *records* that are published, sorted; what is left out is counted in *dropped*.

    What stands only in libarchive's own form is left out: Go's reader ignores it, hence every runtime does.
    """
    found = []
    for key, value in records.items():
        if key.startswith(_RECORD):
            found.append((key[len(_RECORD) :], value))
        elif key.startswith(_LIBARCHIVE_RECORD) and _RECORD + key[len(_LIBARCHIVE_RECORD) :] not in records:
            dropped["LIBARCHIVE.xattr.* record"] += 1
    if len(found) > MAX_COUNT:
        raise Refusal(f"more than {MAX_COUNT} extended attributes")
    kept: list[tuple[bytes, bytes]] = []
    for name, value in sorted(found):
        _check(name, value)
        if reason := _reason_to_drop(name, value):
            dropped[reason] += 1
        elif len(kept) == STORED_COUNT:
            dropped[f"xattr beyond the first {STORED_COUNT}"] += 1
        else:
            kept.append((name, value))
    return tuple(kept)


def _check(name: bytes, value: bytes) -> None:
    if not name or len(name) > MAX_NAME:
        raise Refusal(f"an extended attribute whose name has {len(name)} bytes")
    if len(value) > MAX_VALUE:
        raise Refusal(f"an extended attribute of {len(value)} bytes")


def _reason_to_drop(name: bytes, value: bytes) -> str:
    """Why an attribute is left out; empty if it is kept."""
    if name != b"security.capability":
        for namespace in _FOREIGN:
            if name.startswith(namespace):
                return f"{namespace.decode()}* attribute"
        if not name.startswith(b"user."):
            return "attribute of an unknown namespace"
    return f"xattr longer than {STORED_VALUE} bytes" if len(value) > STORED_VALUE else ""
