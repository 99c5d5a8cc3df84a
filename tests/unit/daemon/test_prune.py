"""Decisions that hold for one revision are made anew for another, and a log line is one line."""

import json
import logging

import pytest

from ducc import layout
from ducc.daemon.removals import Removal, Schedule
from ducc.logs import JsonLines
from ducc.publish.changes import PutFile
from ducc.publish.commit import commit, commit_decided
from tests.memory import CLOCK, new_repository


def test_changes_are_decided_anew_when_somebody_else_was_faster():
    repository, keys = new_repository()
    bases = []

    def decide(base):
        bases.append(base.manifest.revision)
        if len(bases) == 1:
            commit(repository, keys, [PutFile(b"/r.example/other", b"")], lambda: CLOCK)
        return [PutFile(b"/r.example/decided", str(base.manifest.revision).encode())]

    with repository.store.session():
        head = commit_decided(repository, keys, decide, lambda: CLOCK)
    assert (bases, head.manifest.revision) == ([1, 2], 3)
    assert repository.read(repository.find(head, b"/r.example/decided")) == b"2"


def test_where_nothing_is_decided_no_revision_is_made():
    repository, keys = new_repository()
    with repository.store.session():
        assert commit_decided(repository, keys, lambda base: None).manifest.revision == 1


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_schedule_says_what_was_written(number):
    schedule = Schedule({f"https://r.example/a:{one}": Removal(one, one + 10) for one in range(number)})

    class Repository:
        def file(self, path):
            written = [change for change in Schedule({}).changes(schedule) if change.path == path == layout.REMOVALS]
            return written[0].data if written else None

    assert Schedule.read(Repository()) == schedule
    assert schedule.changes(schedule) == []


def test_a_json_log_has_one_object_a_line_whatever_is_logged():
    record = logging.LogRecord("ducc.x", logging.WARNING, "", 1, "two\nlines: %s", ("ü\n",), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines: ü\n"
    assert json.loads(line)["level"] == "WARNING"
