"""Extended headers of POSIX.1-2001 ("pax"): records `length key=value` that correct the header after them.

The rules are those of Go's reader: the last record of a key wins, an empty value leaves the header's own, a NUL in a
name is refused. Pure: no I/O.
"""

import re
from collections.abc import Mapping

from ducc.layer.block import Header, Refusal

MAX_RECORDS = 65_536

_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_TEXTS = (b"path", b"linkpath", b"uname", b"gname")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")
_TIME = re.compile(rb"([+-]?[0-9]{1,19})(?:\.([0-9]*))?")


def parse_records(body: bytes) -> dict[bytes, bytes]:
    """Read the records of an extended header.

    Version 0.0 of GNU's sparse files repeats a pair of keys; the pairs become one `GNU.sparse.map`, as in version 0.1.
    """
    records: dict[bytes, bytes] = {}
    sparse_map: list[bytes] = []
    start, count = 0, 0
    while start < len(body):
        key, value, start = _record(body, start)
        count += 1
        if count > MAX_RECORDS:
            raise Refusal(f"more than {MAX_RECORDS} pax records for one member")
        if key in _SPARSE_PAIR:
            if key != _SPARSE_PAIR[len(sparse_map) % 2] or b"," in value:
                raise Refusal("the pax records of a sparse file are out of order")
            sparse_map.append(value)
        else:
            records[key] = value
    if sparse_map:
        records[b"GNU.sparse.map"] = b",".join(sparse_map)
    return records


def merge_records(records: Mapping[bytes, bytes], header: Header) -> None:
    """Let *records* correct *header*, and keep them in it for whoever understands the others."""
    header.records = records
    if path := records.get(b"path"):
        header.name = path
    if linkpath := records.get(b"linkpath"):
        header.link = linkpath
    if uid := records.get(b"uid"):
        header.uid = integer(uid)
    if gid := records.get(b"gid"):
        header.gid = integer(gid)
    if size := records.get(b"size"):
        header.size = integer(size)
    if mtime := records.get(b"mtime"):
        header.mtime, header.mtime_ns = _time(mtime)
    for unused in (b"atime", b"ctime"):
        if value := records.get(unused):
            _time(value)


def integer(digits: bytes) -> int:
    """A decimal number that fits into 64 bits."""
    if not _INTEGER.fullmatch(digits):
        raise Refusal(f"{_shown(digits)} is not an integer of 64 bits")
    return _in_64_bits(int(digits))


def _record(body: bytes, start: int) -> tuple[bytes, bytes, int]:
    """The key and the value of the record at *start*, and where the next one starts."""
    space = body.find(b" ", start, start + 9)
    digits = body[start : max(space, start)]
    if not digits.isdigit():
        raise Refusal("a pax record does not begin with its length")
    end = start + int(digits)
    key, equals, value = body[space + 1 : end - 1].partition(b"=")
    if end > len(body) or body[end - 1 : end] != b"\n" or end <= space + 1:
        raise Refusal("a pax record does not end where it says")
    if not key or not equals:
        raise Refusal("a pax record has no key")
    if b"\0" in (value if key in _TEXTS else key):
        raise Refusal(f"a pax record has a NUL in {_shown(key)}")
    return key, value, end


def _time(digits: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds, the latter never negative; what is finer than a nanosecond is cut off."""
    match = _TIME.fullmatch(digits)
    if not match:
        raise Refusal(f"{_shown(digits)} is not a time")
    seconds, fraction = int(match[1]), match[2]
    nanoseconds = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    if nanoseconds and digits.startswith(b"-"):
        return _in_64_bits(seconds - 1), 10**9 - nanoseconds
    return _in_64_bits(seconds), nanoseconds


def _in_64_bits(value: int) -> int:
    if -(2**63) <= value < 2**63:
        return value
    raise Refusal(f"{value} does not fit into 64 bits")


def _shown(value: bytes) -> str:
    return repr(value[:64])[1:]
