"""The content index is a cache: right when it answers, and never in the way when it can't."""

import hashlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from ducc.ingest.index import ContentIndex


def raw(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def thing(number: int) -> bytes:
    return hashlib.sha1(b"%d" % number).digest()


PAIRS = {raw(number): thing(number) for number in range(1200)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "contents.sqlite"


def filled(path):
    index = ContentIndex(path)
    index.remember(PAIRS.items())
    index.close()


def reads(path):
    index = ContentIndex(path)
    try:
        return index.find(list(PAIRS))
    finally:
        index.close()


def works(index):
    index.remember([(raw(5), thing(5))])
    return index.find([raw(5), raw(10**6)]) == {raw(5): thing(5)}


def test_what_was_remembered_is_found_also_by_the_next_program(path):
    filled(path)
    assert reads(path) == PAIRS


def test_what_is_unknown_is_left_out():
    index = ContentIndex(None)
    assert index.find([raw(1)]) == {}
    assert index.find([]) == {}
    assert works(index)


def test_the_newest_word_counts(path):
    index = ContentIndex(path)
    index.remember([(raw(1), thing(1))])
    index.remember([(raw(1), thing(2))])
    assert index.find([raw(1)]) == {raw(1): thing(2)}
    index.close()


def test_an_index_may_be_deleted_at_any_time(path):
    filled(path)
    os.unlink(path)
    assert reads(path) == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"this is no database" * 100,
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:4096] + bytes(len(data) - 4096),
        lambda data: data[:8192] + os.urandom(len(data) - 8192),
    ],
    ids=["text", "nothing", "half", "zeros", "noise"],
)
def test_a_damaged_file_costs_what_it_held_and_nothing_else(caplog, path, damage):
    filled(path)
    path.write_bytes(damage(path.read_bytes()))
    index = ContentIndex(path)
    found = index.find(list(PAIRS))
    assert found.items() <= PAIRS.items()
    assert works(index)
    index.close()
    index = ContentIndex(path)
    assert works(index)
    index.close()


def test_damage_that_shows_in_the_middle_of_the_work_is_got_over(caplog, path):
    """A page goes bad under an open index: asking and remembering go on, with an empty one."""
    filled(path)
    index = ContentIndex(path)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    found = index.find(list(PAIRS))
    assert found.items() <= PAIRS.items()
    index.remember(PAIRS.items())
    assert works(index)
    index.close()
    assert "content index" in caplog.text
    assert reads(path).items() <= PAIRS.items()


def test_damage_that_shows_when_something_is_remembered_is_got_over(caplog, path):
    filled(path)
    index = ContentIndex(path)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    index.remember([(raw(10**6), thing(1))])
    assert works(index)
    index.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE content (raw BLOB PRIMARY KEY, other TEXT)",
        "CREATE VIEW content AS SELECT 1 AS raw, 2 AS object",
        "CREATE TABLE content (raw BLOB PRIMARY KEY, object BLOB, more BLOB NOT NULL)",
    ],
)
def test_a_file_with_other_tables_is_made_anew(caplog, path, statement):
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    index = ContentIndex(path)
    index.remember([(raw(1), thing(1))])
    assert works(index)
    index.close()
    index = ContentIndex(path)
    assert works(index)
    index.close()


@pytest.mark.parametrize("value", [17, "text", b"short", None])
def test_what_is_no_digest_is_not_given_out(path, value):
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE content SET object = ? WHERE raw = ?", (value, raw(3)))
    database.close()
    assert raw(3) not in reads(path)


def test_where_no_file_can_be_the_index_is_in_memory(caplog, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "contents.sqlite"):
        index = ContentIndex(path)
        assert works(index)
        index.close()


def test_a_locked_file_is_neither_waited_for_for_ever_nor_deleted(caplog, monkeypatch, path):
    filled(path)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **given: real(name, **{**given, "timeout": 0.05}))
    index = ContentIndex(path)
    other = real(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    index.remember([(raw(1), thing(9))])
    assert works(index)
    other.execute("ROLLBACK")
    other.close()
    index.close()
    assert reads(path) == PAIRS


def test_many_threads_share_an_index(path):
    index = ContentIndex(path)

    def work(start):
        for number in range(start, start + 50):
            index.remember([(raw(number), thing(number))])
            assert index.find([raw(number)])[raw(number)] == thing(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(0, 400, 50)))
    assert len(index.find(list(PAIRS))) == 400
    index.close()
