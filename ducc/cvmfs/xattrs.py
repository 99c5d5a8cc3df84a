"""Extended attributes as a catalog row stores them: one small blob.

Layout: version 1, count, then for each attribute key length, value length, key, value; lengths are single bytes.
Keys are sorted, so that equal attributes give equal bytes.
"""

from collections.abc import Iterable

LIMIT = 255  # bytes of a key, bytes of a value, and attributes of an entry
_VERSION = 1


def fits(key: bytes, value: bytes) -> bool:
    """Can the format hold this attribute at all?"""
    return 0 < len(key) <= LIMIT and len(value) <= LIMIT


def encode(attributes: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode *attributes*, each of which `fits`; no attributes give the empty string (a NULL column)."""
    items = sorted(attributes)
    if not items:
        return b""
    parts = [bytes((_VERSION, len(items)))]
    for key, value in items:
        parts.append(bytes((len(key), len(value))) + key + value)
    return b"".join(parts)


def decode(blob: bytes | None) -> dict[bytes, bytes]:
    """Decode a blob; an unknown version or a truncated blob counts as no attributes, as in the stock client."""
    if not blob or len(blob) < 2 or blob[0] != _VERSION:
        return {}
    attributes, at = {}, 2
    for _ in range(blob[1]):
        if at + 2 > len(blob):
            return {}
        key_end = at + 2 + blob[at]
        value_end = key_end + blob[at + 1]
        if value_end > len(blob):
            return {}
        attributes[bytes(blob[at + 2 : key_end])] = bytes(blob[key_end:value_end])
        at = value_end
    return attributes
