"""The daemon's memory: a cache that may be lost, damaged, or read by others at any time."""

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ducc.daemon import state as module
from ducc.daemon.state import ImageState, Run, State, StateUnreadable, Status, read_state

IMAGE = ImageState("https://r/a:1", "https://r/a:*", "list.yaml", 3, Status.FAILING, 100, "why", "Kind", 2, 130, "d", 5)
RUN = Run(started=1, seconds=2.5, lane="quick", published=3, unchanged=4, failed=5, revision=6)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "state.sqlite"


def test_what_was_saved_is_there_for_the_next_process_and_for_readers(path):
    with State(path) as state:
        state.save([IMAGE])
        state.add_run(RUN)
        state.note("rounds", {"list.yaml": 5})
        assert read_state(path) == ([IMAGE], [RUN], {"rounds": {"list.yaml": 5}})
    with State(path) as state:
        assert (state.images(), state.runs(), state.notes()) == ([IMAGE], [RUN], {"rounds": {"list.yaml": 5}})


def test_saving_again_replaces_and_forgetting_forgets(path):
    with State(path) as state:
        state.save([IMAGE, replace(IMAGE, image="https://r/b:1")])
        state.save([replace(IMAGE, attempts=3)])
        assert [image.attempts for image in state.images()] == [3, 2]
        state.forget([IMAGE.image])
        assert [image.image for image in state.images()] == ["https://r/b:1"]


def test_runs_are_bounded_and_the_latest_stay(path, monkeypatch):
    monkeypatch.setattr(module, "MAX_RUNS", 3)
    with State(path) as state:
        for started in range(10):
            state.add_run(replace(RUN, started=started))
        assert [run.started for run in state.runs()] == [9, 8, 7]


def test_images_that_left_are_bounded_and_those_wished_for_all_stay(path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LEFT", 2)
    with State(path) as state:
        state.save([replace(IMAGE, image=f"left {at}", left_at=at) for at in range(5)])
        state.save([replace(IMAGE, image=f"wished {at}") for at in range(5)])
        names = [image.image for image in state.images()]
    assert names == ["left 3", "left 4", *(f"wished {at}" for at in range(5))]


def test_a_long_reason_is_cut(path):
    with State(path) as state:
        state.save([replace(IMAGE, reason="x" * 10_000)])
        assert len(state.images()[0].reason) == module.MAX_REASON


def not_sqlite(path):
    path.write_bytes(b"this is no database" * 1000)


def another_version(path):
    execute(path, "PRAGMA user_version = 99")


def other_columns(path):
    execute(path, "DROP TABLE image", "CREATE TABLE image (something)")


def unknown_status(path):
    execute(path, "UPDATE image SET status = 'happy'")


def damaged_pages(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 4 :] = b"\xff" * (len(data) - len(data) // 4)
    path.write_bytes(data)


def execute(path, *statements):
    database = sqlite3.connect(path)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


DAMAGES = [not_sqlite, another_version, other_columns, unknown_status, damaged_pages]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_of_no_use_is_replaced_with_a_warning(path, damage, caplog):
    with State(path) as state:
        state.save([IMAGE])
    damage(path)
    with State(path) as state:
        assert state.images() == []
        assert "state not usable, starting with an empty one" in caplog.text
        state.save([IMAGE])
    assert read_state(path)[0] == [IMAGE]


def test_a_file_that_is_damaged_while_in_use_is_replaced(path, caplog):
    with State(path) as state:
        state.save([replace(IMAGE, image=f"image {number}") for number in range(1000)])
        not_sqlite(path)
        state.save([IMAGE])
        assert "state not usable" in caplog.text
        state.save([IMAGE])
    assert read_state(path)[0] == [IMAGE]


def test_without_a_place_to_write_memory_must_do(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    with State(tmp_path / "file" / "state.sqlite") as state:
        state.save([IMAGE])
        assert state.images() == [IMAGE]
    assert "state not usable" in caplog.text


def test_a_reader_finds_no_state_or_says_that_it_can_not_be_read(path):
    assert read_state(path) is None
    path.parent.mkdir()
    not_sqlite(path)
    with pytest.raises(StateUnreadable):
        read_state(path)


def test_a_reader_never_costs_the_state(path, caplog, monkeypatch):
    monkeypatch.setattr("ducc.lossy.BUSY_SECONDS", 0.01)
    with State(path) as state:
        state.save([IMAGE])
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM image").fetchall()
        state.save([replace(IMAGE, attempts=9)])
        reader.close()
        assert "state not written" in caplog.text
        state.save([replace(IMAGE, attempts=10)])
    assert read_state(path)[0][0].attempts == 10


DIES_AS_IT_WRITES = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA synchronous = OFF")
database.execute("PRAGMA cache_size = 1")
database.execute("UPDATE image SET reason = hex(randomblob(400))")
os._exit(9)
"""


def test_what_a_daemon_wrote_when_it_was_killed_is_readable_without_it(path):
    before = [replace(IMAGE, image=f"https://host.example/a:{number}") for number in range(500)]
    with State(path) as state:
        state.save(before)
    assert subprocess.run([sys.executable, "-c", DIES_AS_IT_WRITES, path], check=False).returncode == 9
    assert Path(f"{path}-journal").stat().st_size > 0
    found = read_state(path)
    assert found is not None
    assert sorted(found[0], key=lambda one: one.image) == sorted(before, key=lambda one: one.image)


def test_a_file_that_a_daemon_is_just_making_says_nothing_yet(tmp_path):
    path = tmp_path / "state.sqlite"
    path.touch()
    assert read_state(path) is None
    State(path).close()
    assert read_state(path) == ([], [], {})
