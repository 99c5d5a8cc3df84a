"""What holds of every row of a catalog, as conditions in SQL: a hundred thousand rows are judged in a second.

A condition that gives NULL, because a column is NULL that must not be, is broken like one that gives false.
"""

import stat

from ducc.check.findings import Fault
from ducc.cvmfs.entry import Flags

KIND = int(Flags.DIRECTORY | Flags.FILE | Flags.LINK | Flags.SPECIAL)
DIRECTORY, REGULAR = int(Flags.DIRECTORY), int(Flags.FILE)
SYMLINK, SPECIAL = int(Flags.FILE | Flags.LINK), int(Flags.FILE | Flags.SPECIAL)
CHUNKED, EXTERNAL = int(Flags.CHUNKED), int(Flags.EXTERNAL)
MOUNTED = int(Flags.NESTED_MOUNTPOINT | Flags.BIND_MOUNTPOINT)

IS_REGULAR = f"flags & {KIND} = {REGULAR}"
_IS_ROOT = "(md5path_1 = :root_1 AND md5path_2 = :root_2)"
_TYPE = f"mode & {0o170000}"
_SPECIAL_TYPES = f"({stat.S_IFIFO}, {stat.S_IFCHR}, {stat.S_IFBLK}, {stat.S_IFSOCK})"
_OF_CONTENT = CHUNKED | EXTERNAL | int(Flags.HASH_ALGORITHM | Flags.COMPRESSION | Flags.DIRECT_IO)
_UNKNOWN = int(Flags.HASH_ALGORITHM) | int(Flags.COMPRESSION) & ~(1 << 11)  # not SHA-1, neither zlib nor stored
_LINKCOUNT, _GROUP = "hardlinks & 4294967295", "hardlinks >> 32"
_ID = "typeof({0}) = 'integer' AND {0} BETWEEN 0 AND 4294967295"

ROW_RULES: tuple[tuple[Fault, str, str], ...] = (
    (
        Fault.ENTRY_NAME,
        f"{_IS_ROOT} OR name NOT IN ('', '.', '..') AND length(CAST(name AS BLOB)) <= 255"
        " AND NOT instr(CAST(name AS BLOB), x'00') AND NOT instr(CAST(name AS BLOB), x'2f')",
        "no program can use this name",
    ),
    (
        Fault.ENTRY_KIND,
        f"CASE flags & {KIND} WHEN {DIRECTORY} THEN {_TYPE} = {stat.S_IFDIR}"
        f" WHEN {REGULAR} THEN {_TYPE} = {stat.S_IFREG} WHEN {SYMLINK} THEN {_TYPE} = {stat.S_IFLNK}"
        f" WHEN {SPECIAL} THEN {_TYPE} IN {_SPECIAL_TYPES} ELSE 0 END",
        "mode and flags are of different kinds",
    ),
    (
        Fault.ENTRY_FLAGS,
        f"({IS_REGULAR} OR flags & {_OF_CONTENT} = 0) AND flags & {_UNKNOWN} = 0"
        f" AND (flags & {MOUNTED} = 0 OR flags & {DIRECTORY}) AND flags & {MOUNTED} <> {MOUNTED}",
        "its flags do not go together",
    ),
    (Fault.CATALOG_ROOT_FLAG, f"flags & {int(Flags.NESTED_ROOT)} = 0 OR {_IS_ROOT}", "is flagged as a nested root"),
    (Fault.ENTRY_SIZE, "typeof(size) = 'integer' AND size >= 0", "its size is no length"),
    (
        Fault.ENTRY_TIME,
        "typeof(mtime) = 'integer' AND (mtimens IS NULL OR mtimens BETWEEN 0 AND 999999999)",
        "its time is none",
    ),
    (Fault.ENTRY_OWNER, f"{_ID.format('uid')} AND {_ID.format('gid')}", "its owner or group is no number of 32 bits"),
    (Fault.ENTRY_LINKCOUNT, f"{_LINKCOUNT} > 0", "its link count is 0"),
    (
        Fault.LINK_GROUP,
        f"CASE WHEN flags & {DIRECTORY} THEN {_GROUP} = 0 ELSE {_LINKCOUNT} <= 1 OR {_GROUP} > 0 END",
        "its link count and its group do not go together",
    ),
    (Fault.ENTRY_HASH, f"{IS_REGULAR} OR hash IS NULL", "has an object, but is no regular file"),
    (
        Fault.FILE_HASH,
        f"NOT ({IS_REGULAR}) OR CASE WHEN hash IS NULL THEN flags & {CHUNKED}"
        " ELSE typeof(hash) = 'blob' AND length(hash) = 20 AND hash <> zeroblob(20) END",
        "names no object",
    ),
    (
        Fault.ENTRY_SYMLINK,
        f"CASE WHEN flags & {int(Flags.LINK)} THEN symlink <> '' ELSE symlink = '' END",
        "has no target, or has one and is no symbolic link",
    ),
    (
        Fault.SYMLINK_SIZE,
        f"NOT flags & {int(Flags.LINK)} OR length(CAST(symlink AS BLOB)) = size",
        "its size is not its target's length",
    ),
    (
        Fault.SPECIAL_SIZE,
        f"{_TYPE} NOT IN ({stat.S_IFIFO}, {stat.S_IFSOCK}) OR size = 0",
        "is a pipe or socket and has a size",
    ),
)

_BROKEN = [f"({rule}) IS NOT TRUE" for _, rule, _ in ROW_RULES]
BROKEN_ROWS = f"SELECT parent_1, parent_2, name, {', '.join(_BROKEN)} FROM catalog WHERE {' OR '.join(_BROKEN)}"  # noqa: S608

DUPLICATES = "SELECT parent_1, parent_2, name FROM catalog GROUP BY md5path_1, md5path_2 HAVING count(*) > 1"

LINKCOUNTS = f"""
SELECT d.parent_1, d.parent_2, d.name, d.{_LINKCOUNT}, 2 + ifnull(below.number, 0)
FROM catalog d LEFT JOIN
  (SELECT parent_1, parent_2, count(*) AS number FROM catalog WHERE flags & {DIRECTORY} GROUP BY 1, 2) below
  ON below.parent_1 = d.md5path_1 AND below.parent_2 = d.md5path_2
WHERE d.flags & {DIRECTORY} AND NOT d.flags & {MOUNTED} AND d.{_LINKCOUNT} <> 2 + ifnull(below.number, 0)
"""  # noqa: S608 - constants

LINKED = f"""
SELECT {_GROUP}, {_LINKCOUNT}, parent_1, parent_2, name,
  size, mode, mtime, mtimens, hash, symlink, flags & {EXTERNAL}, uid, gid, xattr
FROM catalog WHERE {_GROUP} AND NOT flags & {DIRECTORY} ORDER BY 1, rowid
"""  # noqa: S608 - constants

# In the order of `Counters`, without the two that are counted in other tables.
COUNTS = f"""
SELECT sum({IS_REGULAR}), sum(flags & {KIND} = {SYMLINK}), sum(flags & {KIND} = {SPECIAL}), sum(flags & {DIRECTORY}),
  (SELECT count(*) FROM nested_catalogs), sum({IS_REGULAR} AND flags & {CHUNKED} <> 0), (SELECT count(*) FROM chunks),
  sum(CASE WHEN {IS_REGULAR} THEN size END), sum(CASE WHEN {IS_REGULAR} AND flags & {CHUNKED} THEN size END),
  sum(length(xattr) > 0), sum(flags & {EXTERNAL} <> 0), sum(CASE WHEN flags & {EXTERNAL} THEN size END)
FROM catalog
"""  # noqa: S608 - constants

CONTENTS = f"""
SELECT parent_1, parent_2, name, hash, size, flags FROM catalog
WHERE {IS_REGULAR} AND NOT flags & {EXTERNAL} AND typeof(hash) = 'blob' AND length(hash) = 20
"""  # noqa: S608 - constants

CHUNKED_FILES = (
    f"SELECT md5path_1, md5path_2, parent_1, parent_2, name, size, flags FROM catalog WHERE flags & {CHUNKED}"  # noqa: S608
)
CHUNKS = "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY md5path_1, md5path_2, offset"
XATTRS = "SELECT parent_1, parent_2, name, xattr FROM catalog WHERE length(xattr) > 0"
MARKERS = "SELECT parent_1, parent_2, name FROM catalog WHERE name = CAST(? AS TEXT)"
"""Rows of the name that is given."""

ROOT_COLUMNS = "name, mode, uid, gid, size, mtime, ifnull(mtimens, 0), hardlinks & 4294967295, ifnull(xattr, x'')"
"""As `RootRow` in `catalog` has them."""
ROOT_ROW = f"SELECT flags, {ROOT_COLUMNS} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"  # noqa: S608
MOUNT_ROWS = f"SELECT md5path_1, md5path_2, flags, {ROOT_COLUMNS} FROM catalog WHERE flags & {MOUNTED}"  # noqa: S608
KEYS = "SELECT parent_1, parent_2, name, md5path_1, md5path_2, flags FROM catalog ORDER BY rowid"
