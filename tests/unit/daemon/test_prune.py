"""Decisions that hold for one revision are made anew for another, and a log line is one line."""

import json
import logging

import pytest

from ducc import layout
from ducc.convert import assembly
from ducc.daemon.prune import Wished, plan_prune
from ducc.daemon.removals import Removal, Schedule
from ducc.image.chain import chain_ids
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.logs import JsonLines
from ducc.publish.changes import PutFile, Remove
from ducc.publish.commit import commit, commit_decided
from tests import builders
from tests.builders import Image, Layer
from tests.memory import CLOCK, new_repository
from tests.unit.convert.desk import desk, statuses


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


# --- what is published of a layer for one stack goes with the last image that has the stack ----


@pytest.fixture
def two_stacks(monkeypatch):
    """Two images share a layer that is completed for each: how they are wished for, and where it is published."""
    monkeypatch.setattr(assembly, "MOST_LAYERS_APART", 1)
    with desk() as table:
        shared = Layer.of(builders.file("passed/through"))
        below = [Layer.of(builders.directory("passed", mode=mode)) for mode in (0o700, 0o711)]
        wishes = [table.hold(Image([one, shared]), f"t{n}") for n, one in enumerate(below)]
        table.convert(*wishes)
        layer = Digest.parse(builders.sha256(shared.blob))
        chains = [chain_ids([Digest.parse(one.diff_id), Digest.parse(shared.diff_id)])[1] for one in below]
        places = [{layout.stacked_layer(layer, chain), layout.whole_stack(layer, chain)} for chain in chains]
        yield table, wishes, layer, places


def removed_without(table, kept):
    """The paths that a removal of all images but *kept* takes away."""
    wished = Wished(frozenset([layout.public_link(Reference.parse(kept))]), (), ())
    for now in (10, 20):
        changes = plan_prune(table.repository, table.repository.head(), wished, now, 1.0).changes
        with table.store.session():
            commit(table.repository, table.keys, changes, lambda: CLOCK)
    return {change.path for change in changes if isinstance(change, Remove)}


def test_trees_of_a_stack_that_no_image_has_any_more_go_and_others_stay(two_stacks):
    table, wishes, _, places = two_stacks
    trees = table.trees()
    assert places[0] | places[1] <= trees.keys()
    assert removed_without(table, wishes[0]) & (places[0] | places[1]) == places[1]
    assert places[0] <= table.trees().keys()
    assert statuses(table.convert(wishes[0])) == ["unchanged"]
    assert table.errors() == []


def test_where_a_layer_cannot_be_read_no_stack_of_it_goes(two_stacks, caplog):
    table, wishes, layer, places = two_stacks
    with table.store.session():
        commit(table.repository, table.keys, [PutFile(layout.layer_file(layer, "tree.json"), b"{}")], lambda: CLOCK)
    assert not removed_without(table, wishes[0]) & (places[0] | places[1])
    assert "description unreadable" in caplog.text
    caplog.clear()
