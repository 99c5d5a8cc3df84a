"""The tables of a catalog, schema 2.5 revision 7, and what each column holds.

| table | holds |
|---|---|
| catalog | one row for each name; `Entry` in `ducc/cvmfs/entry.py` explains the columns |
| chunks | the pieces of big files, by the path key of the file |
| nested_catalogs | where another catalog of the same coordinates continues: path, hash, uncompressed bytes |
| bind_mountpoints | where a tree with coordinates of its own is mounted: path, hash, uncompressed bytes |
| statistics | 24 counters: `self_*` of this catalog, `subtree_*` of all nested below it (binds are not counted) |
| properties | schema, schema_revision, root_prefix (absent in a tree's root), revision, last_modified, TTL … |
"""

from typing import NamedTuple

SCHEMA = "2.5"
SCHEMA_REVISION = "7"
PAGE_BYTES = 1024  # the stock client's page cache is made of slots for this size

TABLES = """
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
  hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER,
  name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,
  CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
  CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
  FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_nested PRIMARY KEY (path));
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_bind PRIMARY KEY (path));
CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
"""
PARENT_INDEX = "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)"

COLUMNS = (
    "md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, mtimens, flags, "
    "name, symlink, uid, gid, xattr"
)


class Counters(NamedTuple):
    """What a catalog, or all below it, contains. Bytes where the name says size."""

    regular: int = 0
    symlink: int = 0
    special: int = 0
    dir: int = 0
    nested: int = 0
    chunked: int = 0
    chunks: int = 0
    file_size: int = 0
    chunked_size: int = 0
    xattr: int = 0
    external: int = 0
    external_file_size: int = 0

    def plus(self, other: "Counters") -> "Counters":
        return Counters(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Counters") -> "Counters":
        return Counters(*(a - b for a, b in zip(self, other, strict=True)))


class CatalogRef(NamedTuple):
    """Which catalog: the hash of its stored bytes (20 bytes), and the bytes of the database uncompressed."""

    digest: bytes
    size: int

    def __str__(self) -> str:
        return self.digest.hex()
