"""One spoilt repository for every finding there is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from ducc.catalog.history import Branch, History, Tag
from ducc.catalog.reflog import Reflog
from ducc.check import catalog
from ducc.check.findings import Fault
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.publish.keys import sign_whitelist
from ducc.storage.base import MANIFEST, REFLOG, WHITELIST
from tests.signing import FQRN, NOW, keys
from tests.unit.check.samples import MASTER, Roots, Sample, build

OTHER_KEYS, OTHER_MASTER = keys(number=1)
OTHER_WHITELIST = sign_whitelist(OTHER_KEYS, OTHER_MASTER, NOW)
STRANGE_WHITELIST = sign_whitelist(*keys("other.example.org"), NOW)


@dataclass
class Case:
    """*ids* are found, and no others. *sql* spoils catalogs by place, *roots* what is above, *damage* the store."""

    ids: str
    sql: dict[str, str | Sequence[str]] = field(default_factory=dict)
    roots: Callable[[Roots], None] | None = None
    damage: Callable[[Sample], None] | None = None
    data: bool = False
    masters: Sequence = (MASTER.public_key(),)
    days: int = 0  # how much later it is
    path: str | None = None
    limits: dict[str, int] = field(default_factory=dict)  # lower than they are

    def __str__(self):
        return f"{self.ids}-{next(iter(self.sql.values()), '')}"[:70]

    def sample(self) -> Sample:
        statements = {place: [sql] if isinstance(sql, str) else sql for place, sql in self.sql.items()}
        sample = build(statements, self.roots)
        if self.damage:
            self.damage(sample)
        return sample


def row(name, change):
    return f"UPDATE catalog SET {change} WHERE name = '{name}'"


def in_tree(ids, *sql, path=None):
    return Case(ids, {"tree": sql}, path=path)


def manifest(**fields):
    return lambda roots: roots.manifest.update(fields)


def drop(file):
    return lambda sample: sample.store.files.pop(file)


def replace_file(file, data):
    return lambda sample: sample.store.files.update({file: data})


def cut_signature(sample):
    sample.store.files[MANIFEST] = sample.store.files[MANIFEST][:-1] + b"x"


def attribute(name, value):
    return lambda roots: setattr(roots, name, value)


def branches(*some, tag_on):
    def change(roots):
        tag = Tag("side", roots.manifest["root_hash"], 1, 0, branch=tag_on)
        roots.history = History(FQRN, [*roots.history.tags(), tag], [Branch("", None, 0), *some])

    return change


def forget_tree(roots):
    roots.history.remove("tree")


def unlist(which):
    def change(roots):
        listed = [ref for ref in roots.reflog.refs() if ref.digest != roots.manifest[which]]
        roots.reflog = Reflog(FQRN, listed)

    return change


def unlist_tree(roots):
    tree = roots.history.get("tree").hash
    roots.reflog.remove(tree)


def remove(name_of):
    def damage(sample):
        del sample.store.objects[name_of(sample)]

    return damage


def overwrite(name_of, data):
    return lambda sample: sample.store.objects.update({name_of(sample): data})


def content(sample):
    return sample.content


def tree_catalog(sample):
    return ObjectName(sample.tree.digest, Suffix.CATALOG)


RAW = b"bytes that do not inflate"
ABOVE_CATALOGS = [
    Case("manifest-missing", damage=drop(MANIFEST)),
    Case("manifest-malformed", damage=replace_file(MANIFEST, b"<html>\n")),
    Case("manifest-repository", roots=manifest(fqrn="other.example.org")),
    Case("manifest-repository manifest-signature", roots=manifest(fqrn="other.example.org"), damage=cut_signature),
    Case("manifest-signature", damage=cut_signature),
    Case("manifest-size", roots=manifest(root_size=1)),
    Case("manifest-revision", roots=manifest(revision=2)),
    Case("certificate-missing", roots=manifest(certificate=None)),
    Case("certificate-unusable", roots=attribute("certificate_pem", b"none")),
    Case("certificate-unlisted", damage=replace_file(WHITELIST, OTHER_WHITELIST), masters=[OTHER_MASTER.public_key()]),
    Case("certificate-unlisted manifest-signature", roots=attribute("certificate_pem", OTHER_KEYS.certificate_pem)),
    Case("whitelist-missing", damage=drop(WHITELIST)),
    Case("whitelist-malformed", damage=replace_file(WHITELIST, b"<html>\n")),
    Case("whitelist-malformed", damage=replace_file(WHITELIST, OTHER_WHITELIST[:100])),
    Case("whitelist-malformed certificate-unlisted", damage=replace_file(WHITELIST, OTHER_WHITELIST[:-256])),
    Case("whitelist-repository certificate-unlisted", damage=replace_file(WHITELIST, STRANGE_WHITELIST)),
    Case("whitelist-signature", masters=[OTHER_MASTER.public_key()]),
    Case("whitelist-expired", days=30),
    Case("whitelist-expired whitelist-signature", days=30, masters=[OTHER_MASTER.public_key()]),
    Case("whitelist-expires", days=25),
    Case("master-key-unknown", masters=[]),
    Case("metainfo-malformed", roots=attribute("metainfo", b"{")),
    Case("metainfo-malformed", roots=attribute("metainfo", b"[]")),
    Case("history-unreadable bind-untagged", roots=lambda roots: setattr(roots.history, "to_bytes", lambda: b"none")),
    Case("history-repository", roots=lambda roots: setattr(roots.history, "fqrn", "other.example.org")),
    Case("history-branch", roots=branches(tag_on="nothing")),
    Case("history-branch", roots=branches(Branch("a", "", 0), tag_on="")),
    Case("history-branch", roots=branches(Branch("a", "", 5), tag_on="a")),
    Case("history-branch", roots=branches(Branch("a", "b", 0), Branch("b", "a", 0), tag_on="a")),
    Case("history-trunk", roots=lambda roots: roots.history.remove("trunk")),
    Case("reflog-missing", damage=drop(REFLOG)),
    Case("reflog-unreadable", damage=replace_file(REFLOG, b"none")),
    Case("reflog-repository", roots=lambda roots: setattr(roots.reflog, "fqrn", "other.example.org")),
    Case("reflog-checksum", roots=manifest(reflog=b"?" * 20)),
    Case("reflog-unlisted reflog-tree-unlisted", roots=unlist("root_hash")),
    Case("reflog-tree-unlisted", roots=unlist_tree, path="/flat/image"),
    Case("bind-untagged", roots=forget_tree, path="/flat/image"),
]
OBJECTS = [
    Case("", damage=overwrite(content, b"other bytes")),
    Case("object-missing", damage=remove(content), path="/flat/image/etc/one"),
    Case("object-missing", damage=remove(content), data=True),
    Case("object-missing", damage=remove(lambda sample: sample.chunk), path="/flat/image/etc/big"),
    Case("object-missing", damage=remove(tree_catalog), path="/flat/image"),
    Case("object-damaged", damage=overwrite(content, b"other bytes"), data=True, path="/flat/image/etc/one"),
    Case("object-damaged", damage=overwrite(content, b""), data=True),
    Case("object-damaged", damage=overwrite(tree_catalog, b"other bytes"), path="/flat/image"),
    Case(
        "object-unreadable",
        {"tree": row("passwd", f"hash = x'{ObjectName.of(RAW)}'")},
        damage=overwrite(lambda _: ObjectName.of(RAW), RAW),
        data=True,
    ),
    Case("object-size catalog-counter", {"tree": row("passwd", "size = 12")}, data=True, path="/flat/image/etc/passwd"),
]
CATALOGS = [
    in_tree("catalog-unreadable", "CREATE VIEW spy AS SELECT 1"),
    in_tree("catalog-unreadable", "CREATE TRIGGER spy AFTER INSERT ON catalog BEGIN SELECT 1; END"),
    in_tree("catalog-unreadable", row("etc", "flags = 'none'")),
    in_tree("catalog-schema", "DROP TABLE bind_mountpoints"),
    in_tree("catalog-schema", "ALTER TABLE catalog DROP COLUMN mtimens"),
    in_tree("catalog-schema", "UPDATE properties SET value = '3.0' WHERE key = 'schema'"),
    in_tree("catalog-schema catalog-counter", "DELETE FROM statistics WHERE counter = 'self_dir'"),
    in_tree("catalog-index", "DROP INDEX idx_catalog_parent"),
    Case("catalog-heavy", limits={"HEAVY_ROWS": 10}, path="/flat/image"),
    in_tree("catalog-root", "DELETE FROM catalog WHERE name = ''"),
    in_tree("catalog-root", row("", "name = 'root'")),
    Case("catalog-root", {"trunk/flat": "UPDATE properties SET value = '' WHERE key = 'root_prefix'"}, path="/flat"),
    Case("catalog-root-flag", {"tree/usr": row("usr", "flags = 1")}, path="/flat/image/usr"),
    in_tree("catalog-root-flag", row("", "flags = 33")),
    in_tree("catalog-root-flag", row("etc", "flags = 33"), path="/flat/image/etc"),
    in_tree("catalog-counter", "UPDATE statistics SET value = 1 WHERE counter = 'self_regular'", path="/flat/image"),
    in_tree("catalog-counter", "UPDATE statistics SET value = 1 WHERE counter = 'self_chunked_size'"),
    in_tree("catalog-counter", "UPDATE statistics SET value = 9 WHERE counter = 'subtree_dir'", path="/flat/image"),
    Case("catalog-counter", {"trunk": "UPDATE statistics SET value = 5 WHERE counter = 'subtree_dir'"}, path="/"),
]
ROWS = [
    in_tree("entry-name entry-key", row("passwd", "name = ''")),
    in_tree("entry-name entry-key", row("passwd", "name = NULL")),
    in_tree("entry-name entry-key", row("passwd", "name = '..'")),
    in_tree("entry-name entry-key", row("passwd", "name = 'a/b'")),
    in_tree("entry-name entry-key", row("passwd", "name = 'a' || char(0) || 'b'")),
    in_tree("entry-name entry-key", row("passwd", "name = printf('%0256d', 1)")),
    in_tree("entry-key", row("passwd", "md5path_1 = 5"), path="/flat/image/etc/passwd"),
    in_tree("entry-key", row("passwd", "name = 'shadow'")),
    in_tree(
        "entry-duplicate catalog-index catalog-counter",
        "CREATE TABLE copy AS SELECT * FROM catalog",
        "DROP TABLE catalog",
        "ALTER TABLE copy RENAME TO catalog",
        "INSERT INTO catalog SELECT * FROM catalog WHERE name = 'passwd'",
        path="/flat/image/etc/passwd",
    ),
    in_tree("entry-parent", row("passwd", "parent_1 = 5"), path="/flat/image/?/passwd"),
    in_tree("entry-parent", row("passwd", "parent_1 = high('/etc/one'), parent_2 = low('/etc/one')")),
    in_tree("entry-kind", row("passwd", "mode = 0")),
    in_tree("entry-kind", row("passwd", "mode = 16877")),
    in_tree("entry-kind entry-owner special-size", row("passwd", "mode = NULL, uid = NULL")),
    in_tree("entry-flags", row("symlink", f"flags = flags | {1 << 11}")),
    in_tree("entry-flags", row("passwd", f"flags = flags | {2 << 11}")),
    in_tree("entry-flags", row("passwd", "flags = flags | 256")),
    in_tree("entry-flags mountpoint-unregistered", row("passwd", "flags = flags | 2")),
    in_tree("entry-flags mountpoint-unflagged catalog-counter", row("usr", f"flags = {0x4003}")),
    in_tree("entry-size catalog-counter", row("passwd", "size = -1")),
    in_tree("entry-size catalog-counter", row("passwd", "size = 'x'")),
    in_tree("entry-size", row("empty", "size = NULL")),
    in_tree("entry-time", row("passwd", "mtimens = 1000000000")),
    in_tree("entry-time", row("passwd", "mtime = NULL")),
    in_tree("entry-owner", row("passwd", "uid = -1")),
    in_tree("entry-owner", row("passwd", "gid = 4294967296")),
    in_tree("entry-hash", row("empty", "hash = zeroblob(20)")),
    in_tree("entry-hash", row("symlink", "hash = randomblob(20)")),
    in_tree("entry-hash", row("pipe", "hash = randomblob(20)")),
    in_tree("entry-symlink", row("passwd", "symlink = 'x'")),
    in_tree("entry-symlink", row("passwd", "symlink = NULL")),
    in_tree("entry-symlink", row("symlink", "symlink = '', size = 0")),
    in_tree("entry-linkcount", row("passwd", "hardlinks = 0")),
    in_tree("entry-xattr", row("passwd", "xattr = x'0105'")),
    in_tree("entry-xattr", row("passwd", "xattr = x'ff01'")),
    in_tree("directory-linkcount", row("etc", "hardlinks = 2"), path="/flat/image/etc"),
    in_tree("directory-linkcount bind-root-row", row("", "hardlinks = 3"), path="/flat/image"),
    in_tree("file-hash", row("passwd", "hash = NULL")),
    in_tree("file-hash object-missing", row("passwd", "hash = zeroblob(20)")),
    in_tree("file-hash", row("passwd", "hash = zeroblob(19)")),
    in_tree("file-hash", row("passwd", "hash = 'text of 20 bytes ...'")),
    in_tree("symlink-size", row("symlink", "size = 5")),
    in_tree("special-size", row("pipe", "size = 5")),
    in_tree("link-group", row("etc", "hardlinks = hardlinks + (1 << 32)")),
    in_tree("link-group", row("one", "hardlinks = 2")),
    in_tree("link-group", row("passwd", "hardlinks = 2")),
    in_tree("link-group", row("one", "mtime = 5"), path="/flat/image/etc/one"),
    in_tree("link-group", row("one", "hardlinks = hardlinks + 1")),
    in_tree("link-group", row("null", "hardlinks = (1 << 32) + 2"), row("pipe", "hardlinks = (1 << 32) + 2")),
    in_tree(
        "link-group",
        "UPDATE catalog SET parent_1 = high('/etc/empty'), parent_2 = low('/etc/empty'),"
        " md5path_1 = high('/etc/empty/one'), md5path_2 = low('/etc/empty/one') WHERE name = 'one'",
    ),
    in_tree("chunk-missing catalog-counter", "DELETE FROM chunks", path="/flat/image/etc/big"),
    in_tree("chunk-gap", "UPDATE chunks SET offset = 101 WHERE offset = 100"),
    in_tree("chunk-gap", "UPDATE chunks SET offset = 99 WHERE offset = 100"),
    in_tree("chunk-gap chunk-sum", "UPDATE chunks SET size = 0 WHERE offset = 100"),
    in_tree("chunk-gap chunk-sum catalog-counter", "DELETE FROM chunks WHERE offset = 0"),
    in_tree("chunk-sum", "UPDATE chunks SET size = 51 WHERE offset = 100"),
    in_tree("chunk-sum catalog-counter", row("big", "size = 151")),
    in_tree("chunk-hash", "UPDATE chunks SET hash = zeroblob(20) WHERE offset = 0"),
    in_tree("chunk-hash", "UPDATE chunks SET hash = NULL WHERE offset = 0"),
    in_tree("chunk-stray file-hash catalog-counter", row("big", "flags = 4")),
    in_tree("chunk-stray catalog-counter", "INSERT INTO chunks VALUES (1, 2, 0, 5, zeroblob(20))"),
    Case("marker-missing entry-key", {"tree/usr": row(".cvmfscatalog", "name = 'x'")}, path="/flat/image/usr"),
    in_tree(
        "marker-misplaced",
        "UPDATE catalog SET md5path_1 = high('/etc/.cvmfscatalog'), md5path_2 = low('/etc/.cvmfscatalog'),"
        " name = '.cvmfscatalog' WHERE name = 'passwd'",
        path="/flat/image/etc/.cvmfscatalog",
    ),
]
MOUNTS = [
    in_tree("mountpoint-unregistered catalog-counter", "DELETE FROM nested_catalogs", path="/flat/image/usr"),
    in_tree("mountpoint-unregistered catalog-counter", "UPDATE nested_catalogs SET sha1 = 'none'"),
    Case("mountpoint-unregistered", {"trunk/flat": "DELETE FROM bind_mountpoints"}, path="/flat/image"),
    in_tree(
        "mountpoint-unflagged directory-linkcount catalog-counter", row("usr", "flags = 1"), path="/flat/image/usr"
    ),
    in_tree(
        "mountpoint-unflagged catalog-counter",
        "INSERT INTO nested_catalogs SELECT '/opt', sha1, size FROM nested_catalogs",
        path="/flat/image/opt",
    ),
    Case("mountpoint-unflagged", {"trunk/flat": row("image", "flags = 3")}, path="/flat/image"),
    in_tree(
        "mountpoint-twice mountpoint-unflagged catalog-counter",
        "INSERT INTO bind_mountpoints SELECT * FROM nested_catalogs",
    ),
    in_tree("mountpoint-children", row("passwd", "parent_1 = high('/usr'), parent_2 = low('/usr')")),
    Case("bind-crowded", limits={"CROWDED_BINDS": 0}, path="/flat"),
    in_tree("catalog-size", "UPDATE nested_catalogs SET size = size + 1", path="/flat/image/usr"),
    Case("catalog-size", {"trunk/flat": "UPDATE bind_mountpoints SET size = 0"}, path="/flat/image"),
    in_tree(
        "catalog-prefix nested-root-row",
        row("usr", "name = 'lib', md5path_1 = high('/lib'), md5path_2 = low('/lib')"),
        "UPDATE nested_catalogs SET path = '/lib'",
        path="/flat/image/lib",
    ),
    in_tree("nested-root-row", row("usr", "mode = mode - 1"), path="/flat/image/usr"),
    Case("nested-root-row", {"trunk": row("flat", "uid = 5")}, path="/flat"),
    Case("bind-root-row", {"trunk/flat": row("image", "gid = 5")}, path="/flat/image"),
    Case("bind-root-row", {"trunk/flat": row("image", "mtime = 5")}),
    Case("bind-root-row", {"trunk/flat": row("image", "hardlinks = 2")}),
    Case("bind-root-row catalog-counter", {"trunk/flat": row("image", "xattr = x'01010101' || x'6162'")}),
]
CASES = [*ABOVE_CATALOGS, *OBJECTS, *CATALOGS, *ROWS, *MOUNTS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_wrong_is_found_and_nothing_else(case, monkeypatch):
    for name, value in case.limits.items():
        monkeypatch.setattr(catalog, name, value)
    found, _ = case.sample().check(data=case.data, masters=case.masters, now=NOW + timedelta(days=case.days))
    assert sorted({finding.fault.id for finding in found}) == sorted(case.ids.split())
    if case.path:
        assert case.path in {finding.shown_path for finding in found}


def test_every_finding_has_a_case():
    covered = {fault for case in CASES for fault in case.ids.split()}
    assert {fault.id for fault in Fault} - covered == set()
