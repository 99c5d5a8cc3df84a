"""Wishes become steps: one for each image, nothing to do for what is published whole, and a broken wish alone."""

import pytest

from ducc import layout
from ducc.convert.plan import Convert, GiveUp, Keep
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.publish.changes import Remove
from ducc.publish.commit import commit
from ducc.registry.client import NoSuchImage, Registry
from tests import builders
from tests.builders import Image, Layer
from tests.fakes.registry import Answer
from tests.memory import CLOCK
from tests.unit.convert.desk import Desk, desk

ONE = Image([Layer.of(builders.file("one", b"1"))])
TWO = Image([Layer.of(builders.file("two", b"2"))])


@pytest.fixture
def table():
    with desk() as made:
        yield made


def references(steps) -> list[str]:
    return [str(step.reference) for step in steps]


def test_what_is_not_published_is_to_be_converted(table: Desk):
    wish = table.hold(ONE)
    assert table.plan(wish) == [Convert(Reference.parse(wish), step_digest(ONE))]


def step_digest(image: Image) -> Digest:
    return Digest.parse(builders.sha256(image.manifest))


def test_what_is_published_is_kept_for_one_request(table: Desk):
    wish = table.hold(ONE)
    table.convert(wish)
    table.server.seen.clear()
    assert table.plan(wish) == [Keep(Reference.parse(wish), step_digest(ONE))]
    assert len(table.server.seen) == 1


def test_a_tag_that_moved_is_to_be_converted(table: Desk):
    wish = table.hold(ONE)
    table.convert(wish)
    table.hold(TWO)
    assert table.plan(wish) == [Convert(Reference.parse(wish), step_digest(TWO))]


def test_a_digest_of_what_is_published_is_kept_without_asking(table: Desk):
    table.hold(ONE)
    wish = table.server.reference(f"@{builders.sha256(ONE.manifest)}")
    table.convert(wish)
    table.server.seen.clear()
    assert table.plan(wish) == [Keep(Reference.parse(wish), step_digest(ONE))]
    assert table.server.seen == []


def test_what_is_published_in_part_only_is_to_be_converted_again(table: Desk):
    wish = table.hold(ONE)
    table.convert(wish)
    record, reference = table.record(wish), Reference.parse(wish)
    parts = [
        layout.public_link(reference),
        layout.flat_image(record.config_digest),
        layout.layer_tree(record.layers[0]),
        layout.layer_anywhere(record.layers[0]),
        layout.metadata_file(reference, "record.json"),
    ]
    for part in parts:
        with table.store.session():
            commit(table.repository, table.keys, [Remove(part)], lambda: CLOCK)
        (step,) = table.plan(wish)
        assert isinstance(step, Convert), part
        table.run([step])
        assert table.errors() == []
        (step,) = table.plan(wish)
        assert isinstance(step, Keep), part


def test_a_wildcard_is_one_step_for_each_tag_that_fits(table: Desk):
    for tag in ("1.0", "1.1", "2.0"):
        table.hold(ONE, tag)
    table.server.hold_tags("1.0", "2.0", "1.1")
    assert references(table.plan(table.server.reference(":1.*"))) == [
        table.server.reference(":1.0"),
        table.server.reference(":1.1"),
    ]


def test_an_image_that_is_wished_for_twice_is_one_step(table: Desk):
    first, second = table.hold(ONE, "1.0"), table.hold(TWO, "1.1")
    table.server.hold_tags("1.0", "1.1")
    assert references(table.plan(second, first, table.server.reference(":1.*"))) == [second, first]


@pytest.mark.parametrize("status", [404, 403, 500])
def test_what_cannot_be_asked_for_is_given_up_and_the_others_are_not(table: Desk, status):
    wish, broken = table.hold(ONE), table.server.reference(name="no/such")
    table.server.say_always("/v2/no/such/manifests/tag", Answer(status, b"{}"))
    steps = table.plan(broken, wish)
    assert [type(step) for step in steps] == [GiveUp, Convert]
    assert steps[0].wish == broken


def test_a_wildcard_whose_tags_cannot_be_had_is_given_up(table: Desk):
    wish = table.hold(ONE)
    steps = table.plan(table.server.reference(":*", name="no/such"), wish)
    assert sorted(type(step).__name__ for step in steps) == ["Convert", "GiveUp"]
    assert [isinstance(step.error, NoSuchImage) for step in steps if isinstance(step, GiveUp)] == [True]


def test_a_line_that_is_no_wish_is_given_up_by_its_place(table: Desk):
    wish = table.hold(ONE)
    steps = table.plan("not a reference", wish)
    assert [type(step).__name__ for step in steps] == ["Convert", "GiveUp"]
    assert steps[1].wish.startswith("w.yaml:4:")


def test_steps_are_in_the_order_of_the_wishes(table: Desk):
    wishes = [table.hold(ONE, f"t{number}") for number in (3, 1, 4, 5, 9, 2)]
    assert references(table.plan(*wishes)) == wishes


def test_a_fault_of_ours_in_one_wish_costs_no_other(table: Desk, monkeypatch, caplog):
    image = Image([Layer.of(builders.file("a", b"a"))])
    good, bad = table.hold(image, "good"), table.hold(image, "bad")
    ask = Registry.manifest_digest

    def broken(self, reference):
        return 1 // 0 if reference.tag == "bad" else ask(self, reference)

    monkeypatch.setattr(Registry, "manifest_digest", broken)
    first, second = table.plan(good, bad)
    assert isinstance(first, Convert)
    assert isinstance(second, GiveUp)
    assert "ZeroDivisionError" in str(second.error)
    assert "unexpected failure" in caplog.text


def test_what_is_given_up_says_why_without_saying_twice_what():
    wish = "https://registry.example.org/a:1"
    assert (
        GiveUp(wish, NoSuchImage(f"{wish}: the registry has no such image")).reason == "the registry has no such image"
    )
