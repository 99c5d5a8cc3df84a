from ducc.check import catalog
from ducc.check.catalog import check_catalog
from ducc.check.findings import Fault, Finding, Severity
from ducc.check.repository import Seen
from tests.unit.check.samples import build


def test_a_good_repository_has_no_findings_and_all_of_it_was_looked_at():
    found, seen = build().check(data=True)
    assert found == []
    assert seen == Seen(catalogs=4, rows=3 + 3 + 11 + 4, objects=6)


def test_a_tree_bound_at_several_places_is_judged_once():
    copy = (
        "INSERT INTO catalog SELECT high('/flat/copy'), low('/flat/copy'), parent_1, parent_2, hardlinks, hash, size,"
        " mode, mtime, mtimens, flags, 'copy', symlink, uid, gid, xattr FROM catalog WHERE name = 'image'"
    )
    sql = {
        "trunk": [
            "UPDATE catalog SET hardlinks = 4 WHERE name = 'flat'",
            "UPDATE statistics SET value = 3 WHERE counter = 'subtree_dir'",
        ],
        "trunk/flat": [
            copy,
            "INSERT INTO bind_mountpoints SELECT '/flat/copy', sha1, size FROM bind_mountpoints",
            "UPDATE catalog SET hardlinks = 4 WHERE name = 'flat'",
            "UPDATE statistics SET value = 3 WHERE counter = 'self_dir'",
        ],
        "tree": ["UPDATE catalog SET mtime = NULL WHERE name = 'passwd'"],
    }
    found, seen = build(sql).check()
    assert [(one.fault.id, one.path) for one in found] == [("entry-time", b"/flat/image/etc/passwd")]
    assert seen.catalogs == 4


def test_a_spoilt_row_is_found_at_every_check_in_the_same_order():
    sql = {"tree": ["UPDATE catalog SET mtime = NULL", "UPDATE catalog SET uid = -1"]}
    sample = build(sql)
    assert sample.check()[0] == sample.check()[0] != []


def test_many_findings_of_one_kind_are_abridged(monkeypatch):
    monkeypatch.setattr(catalog, "SHOWN", 3)
    found, _ = build({"tree": ["UPDATE catalog SET uid = -1 WHERE NOT flags & 1"]}).check()
    assert [one.fault.id for one in found] == ["entry-owner"] * 4
    assert found[3].text == "and 4 more like this in the same catalog"


def test_what_is_no_database_is_said_to_be_unreadable():
    for data in (b"", b"x" * 5000, b"SQLite format 3\0" + bytes(5000)):
        assert [one.fault for one in check_catalog(data).findings] == [Fault.CATALOG_UNREADABLE]


def test_paths_cannot_speak_to_the_terminal():
    assert Finding(Fault.ENTRY_NAME, b"/a\n\x1b[2J\xff\xc3\xa9", "").shown_path == "/a\\n\\x1b[2J\\xff\u00e9"


def test_identifiers_do_not_change():
    assert {"catalog-counter", "entry-parent", "link-group", "bind-root-row", "object-missing"} <= {
        fault.id for fault in Fault
    }
    assert len({fault.id for fault in Fault}) == len({fault.rule for fault in Fault})
    assert Fault.BIND_ROOT_ROW.severity is Severity.ERROR
