import sqlite3

import pytest

from ducc.catalog.history import BadHistory, Branch, History, Tag
from ducc.catalog.reflog import BadReflog, Ref, RefKind, Reflog

TRUNK = Tag("trunk", b"t" * 20, 7, 1_700_000_000, "a description", 16384)
TREE = Tag("tree-1", b"u" * 20, 0, 1_700_000_001)


def altered(data, *statements):
    database = sqlite3.connect(":memory:")
    database.deserialize(data)
    for statement in statements:
        database.execute(statement)
    database.commit()
    return database.serialize()


def rows(data, sql):
    database = sqlite3.connect(":memory:")
    database.deserialize(data)
    return database.execute(sql).fetchall()


def history_of(*tags):
    return History("repo.example.org", tags)


def test_tags_are_set_moved_and_removed():
    history = History.new("repo.example.org")
    history.set_tag(TREE)
    history.set_tag(TRUNK._replace(revision=6))
    history.set_tag(TRUNK)
    assert history.tags() == [TREE, TRUNK]
    assert history.get("trunk") == TRUNK
    assert (history.remove("trunk"), history.remove("trunk")) == (True, False)
    assert history.get("trunk") is None


def test_reading_gives_back_what_was_written():
    history = History.from_bytes(history_of(TRUNK, TREE).to_bytes())
    assert (history.fqrn, history.tags()) == ("repo.example.org", [TREE, TRUNK])


def test_equal_tags_give_equal_bytes_whatever_happened_before():
    history = history_of(*(Tag(f"tag {number}", b"x" * 20, number, 0) for number in range(3000)))
    for number in range(3000):
        history.remove(f"tag {number}")
    history.set_tag(TRUNK)
    history.set_tag(TREE)
    assert History.from_bytes(history.to_bytes()).to_bytes() == history.to_bytes() == history_of(TREE, TRUNK).to_bytes()


def test_the_tables_are_those_that_stock_programs_read():
    data = history_of(TRUNK).to_bytes()
    assert rows(data, "SELECT name, hash, revision, timestamp, channel, description, size, branch FROM tags") == [
        ("trunk", "74" * 20, 7, 1_700_000_000, 0, "a description", 16384, "")
    ]
    assert rows(data, "SELECT branch, parent, initial_revision FROM branches") == [("", None, 0)]
    assert rows(data, "SELECT * FROM recycle_bin") == []
    assert dict(rows(data, "SELECT key, value FROM properties")) == {
        "schema": "1.0",
        "schema_revision": "3",
        "fqrn": "repo.example.org",
    }


def test_branches_of_stock_publishers_are_kept():
    branches = [Branch("", None, 0), Branch("side", "", 5)]
    data = History("repo.example.org", [TRUNK._replace(branch="side")], branches).to_bytes()
    history = History.from_bytes(data)
    assert history.branches == tuple(branches)
    assert history.to_bytes() == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>" * 2000,
        history_of(TRUNK).to_bytes()[:3000],
        b"SQLite format 3\0" + bytes(5000),
        altered(history_of().to_bytes(), "DROP TABLE tags"),
        altered(history_of().to_bytes(), "UPDATE properties SET value = '2.0' WHERE key = 'schema'"),
        altered(history_of().to_bytes(), "CREATE VIEW spy AS SELECT 1"),
        altered(history_of().to_bytes(), "CREATE TRIGGER spy AFTER INSERT ON tags BEGIN SELECT 1; END"),
        altered(history_of(TRUNK).to_bytes(), "UPDATE tags SET hash = 'none'"),
        altered(history_of(TRUNK).to_bytes(), "UPDATE tags SET hash = NULL"),
        altered(history_of(TRUNK).to_bytes(), "UPDATE tags SET name = CAST(x'ff' AS TEXT)"),
        Reflog.new("repo.example.org").to_bytes(),
    ],
)
def test_what_is_no_tag_database_is_refused(data):
    with pytest.raises(BadHistory):
        History.from_bytes(data)


# --- the reflog ----------------------------------------------------------------------------


def reflog_of(*refs):
    return Reflog("repo.example.org", refs)


def test_what_is_listed_keeps_its_time():
    reflog = Reflog.new("repo.example.org")
    reflog.add(b"c" * 20, RefKind.CATALOG, 5)
    reflog.add(b"c" * 20, RefKind.CATALOG, 6)
    reflog.add(b"b" * 20, RefKind.HISTORY, 7)
    assert reflog.refs() == [Ref(b"b" * 20, RefKind.HISTORY, 7), Ref(b"c" * 20, RefKind.CATALOG, 5)]
    assert b"c" * 20 in reflog
    assert (reflog.remove(b"c" * 20), reflog.remove(b"c" * 20)) == (True, False)
    assert b"c" * 20 not in reflog


def test_a_reflog_is_read_and_written_alike_and_always_with_the_same_bytes():
    refs = [Ref(bytes([number]) * 20, kind, number) for number, kind in enumerate(RefKind)]
    data = reflog_of(*refs).to_bytes()
    assert Reflog.from_bytes(data).refs() == refs
    assert Reflog.from_bytes(data).to_bytes() == data == reflog_of(*reversed(refs)).to_bytes()
    assert rows(data, "SELECT hash, type, timestamp FROM refs ORDER BY type")[2] == ("02" * 20, 2, 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 5000,
        altered(reflog_of().to_bytes(), "DROP TABLE refs"),
        altered(reflog_of().to_bytes(), "UPDATE properties SET value = '4' WHERE key = 'schema_revision'"),
        altered(reflog_of().to_bytes(), "INSERT INTO refs VALUES ('zz', 0, 0)"),
        altered(reflog_of().to_bytes(), f"INSERT INTO refs VALUES ('{'0' * 40}', 9, 0)"),
        history_of().to_bytes(),
    ],
)
def test_what_is_no_reflog_is_refused(data):
    with pytest.raises(BadReflog):
        Reflog.from_bytes(data)
