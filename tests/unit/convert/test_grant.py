"""A pass as a function: on some wishes or all, with their settings, reported, and ended within seconds on demand."""

import base64
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from ducc import layout
from ducc.convert.fetch import LayerWish, Workplace, fetch_layer
from ducc.convert.grant import grant, look
from ducc.convert.observer import LayerProgress, Unobserved
from ducc.convert.plan import Convert, Keep
from ducc.convert.report import Report
from ducc.convert.stop import LAST_SECONDS, Stop, Stopped, Threads
from ducc.image.digest import Digest
from ducc.image.reference import Reference
from ducc.publish.init import init_repository
from ducc.publish.keys import KeyDirectory
from ducc.publish.repository import Repository
from ducc.publish.settings import RepositorySettings
from ducc.registry.client import NoSuchImage, Registry
from ducc.registry.credentials import AccessDenied, Credentials
from ducc.registry.settingsfile import read_settings
from ducc.storage.open import open_store
from ducc.transport import Transport
from tests import builders
from tests.builders import Image, Layer
from tests.fakes.registry import Answer, Seen
from tests.memory import FQRN, INIT
from tests.unit.convert.desk import Desk, desk, noise, statuses, wishlist

SHARED = Layer.of(builders.file("shared", noise(1, 20_000)))
IMAGES = [Image([SHARED, Layer.of(builders.file("own", noise(n, 5_000)))], {"Cmd": [str(n)]}) for n in range(2, 6)]
ENDS_SECONDS = 60  # far more than stopping takes, far less than waiting for what is silent


@pytest.fixture
def table():
    with desk() as made:
        yield made


def passed(table: Desk, directory: Path, *wishes, registry: Registry | None = None, **options) -> Report:
    """One pass by the function that the command and the daemon call."""
    written = wishlist(*wishes)
    workplace = Workplace("memory:", table.repository.fqrn, directory, 2)
    fresh = Repository(table.repository.fqrn, table.store)
    wanted = [*written.wishes, *written.broken]
    asked = registry or table.registry
    return grant(wanted, fresh, table.keys, asked, workplace, clock=lambda: table.clock, **options)


# --- settings of wishes --------------------------------------------------------------------


def test_a_pass_may_be_about_some_wishes_only(table: Desk, tmp_path):
    names = [table.hold(image, f"t{number}") for number, image in enumerate(IMAGES)]
    assert statuses(passed(table, tmp_path, *names[:2])) == ["published"] * 2
    assert statuses(passed(table, tmp_path, *names[2:])) == ["published"] * 2
    report = passed(table, tmp_path, *names)
    assert (statuses(report), report.revision) == (["unchanged"] * 4, None)


def test_looking_changes_nothing(table: Desk):
    name = table.hold(IMAGES[0])
    _, steps = look(wishlist(name, "not a reference").wishes, table.repository, table.registry)
    assert [type(step) for step in steps] == [Convert]
    assert table.repository.head().manifest.revision == 1
    assert table.blobs_asked() == []


def test_layers_alone_have_no_image_tree_and_no_link(table: Desk):
    name = table.hold(IMAGES[0])
    one = {"image": name, "products": ["layers"]}
    assert statuses(table.convert(one)) == ["published"]
    assert {path.split(b"/")[1] for path in table.trees()} == {b".layers"}
    assert table.published().link(layout.public_link(Reference.parse(name))) is None
    assert table.record(name).image_tree is None
    assert table.errors() == []
    assert [type(step) for step in table.plan(one)] == [Keep]
    table.server.seen.clear()
    assert statuses(table.convert(name)) == ["published"]  # flat is wished for now, and takes the layers that are there
    assert [path for path in table.blobs_asked() if builders.sha256(SHARED.blob) in path] == []
    assert table.record(name).image_tree is not None
    assert [type(step) for step in table.plan(one)] == [Keep]
    assert table.errors() == []


def test_flat_implies_layers(table: Desk):
    table.convert({"image": table.hold(IMAGES[0]), "products": ["flat"]})
    assert {path.split(b"/")[1] for path in table.trees()} == {b".layers", b".flat"}


def test_an_ignored_failure_is_told_and_does_not_count(table: Desk):
    good, bad = table.hold(IMAGES[0]), table.server.reference(name="no/such")
    broken = table.hold(Image([Layer.of(builders.hard_link("a", "nobody/has/this"))]), "broken")
    report = table.convert(good, {"image": bad, "ignore_errors": True}, {"image": broken, "ignore_errors": True})
    assert sorted(statuses(report)) == ["failed", "failed", "published"]
    assert report.failed == []
    told = report.to_json("f")["images"]
    assert [image.get("ignored") for image in told if image["status"] == "failed"] == [True, True]
    assert table.convert({"image": bad}).failed


def test_higher_priorities_come_first_and_equal_ones_in_the_order_of_the_list(table: Desk):
    names = [table.hold(image, f"t{number}") for number, image in enumerate(IMAGES)]
    priorities = (0, 5, -1, 5)
    steps = table.plan(*({"image": name, "priority": one} for name, one in zip(names, priorities, strict=True)))
    assert [str(step.reference) for step in steps] == [names[1], names[3], names[0], names[2]]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"newest": 1}, ["1.10"]),
        ({"newest": 2}, ["1.10", "1.9"]),
        ({"exclude": ["*.9"]}, ["1.10", "1.2"]),
        ({"semver": ">=1.3 <2"}, ["1.10", "1.9"]),
        ({}, ["1.10", "1.2", "1.9"]),
    ],
)
def test_a_wildcard_stands_for_the_tags_that_its_wish_chooses(table: Desk, chosen, expected):
    for tag in ("1.2", "1.9", "1.10", "2.0"):
        table.hold(IMAGES[0], tag)
    table.server.hold_tags("1.2", "1.9", "1.10", "2.0")
    one = {"image": table.server.reference(":1.*"), "tags": chosen}
    assert [step.reference.tag for step in table.plan(one)] == expected


def test_a_wildcard_may_choose_by_the_dates_of_images(table: Desk, monkeypatch):
    real = Image.config
    created = {"old": "2001-01-01T00:00:00Z", "new": "2099-01-01T00:00:00Z"}

    class Dated(Image):
        @property
        def config(self) -> bytes:
            return real.fget(self).replace(b"{", b'{"created":"%b",' % created[self.settings["Cmd"][0]].encode(), 1)

    for tag in created:
        table.hold(Dated([SHARED], {"Cmd": [tag]}), tag)
    table.server.hold_tags("old", "new", "gone")
    one = {"image": table.server.reference(":*"), "tags": {"max_age": "90d", "exclude": ["gone"]}}
    assert [step.reference.tag for step in table.plan(one)] == ["new"]


@pytest.fixture
def guarded(table: Desk, tmp_path: Path) -> Callable[[Iterable[str]], None]:
    """A function that lets paths of the registry ask for a password, which the credentials `mine` hold."""
    wanted = "Basic " + base64.b64encode(b"robot:canary").decode()
    secret, settings = tmp_path / "secret", tmp_path / "registries.yaml"
    secret.write_text("canary\n")
    settings.write_text(f"credentials:\n  mine: {{for: '{table.server.host}', user: robot, password_file: {secret}}}\n")
    for path in (secret, settings):
        path.chmod(0o600)
    transport = Transport(sleep=lambda _: None, attempts=2)
    table.registry = Registry(transport, Credentials(), read_settings(settings))

    def answer(seen: Seen) -> Answer:
        if seen.headers.get("Authorization") != wanted:
            return Answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="r"'})
        return table.server.content[seen.path]

    def guard(paths: Iterable[str]) -> None:
        for path in paths:
            table.server.say_always(path, answer)

    return guard


def test_a_wish_is_granted_with_its_own_credentials_and_fails_without(table: Desk, guarded):
    name = table.hold(IMAGES[0])
    guarded(list(table.server.content))
    assert statuses(table.convert(name)) == ["failed"]
    assert statuses(table.convert({"image": name, "credentials": "mine"})) == ["published"]
    assert statuses(table.convert({"image": name, "credentials": "others"})) == ["failed"]


@pytest.mark.parametrize("first", ["with", "without"])
def test_a_layer_that_one_wish_may_not_have_is_got_with_the_credentials_of_another(table: Desk, guarded, first):
    one, two = table.hold(IMAGES[0], "one"), table.hold(Image([SHARED], {"Cmd": ["two"]}), "two")
    guarded([blob_path(SHARED)])
    both = [one, {"image": two, "credentials": "mine"}]
    report = table.convert(*(both if first == "without" else both[::-1]))
    by_image = {outcome.image: outcome.status for outcome in report.outcomes}
    assert by_image[two] == "published"
    assert by_image[one] in ("failed", "published")  # what is published is there for everybody
    assert statuses(table.convert(one)) in (["published"], ["unchanged"])


def test_a_worker_elsewhere_fetches_by_the_name_of_the_credentials_and_what_it_reads_itself(
    table: Desk, guarded, tmp_path
):
    store = tmp_path / "store"
    init_repository(open_store(store.as_uri(), FQRN), KeyDirectory(tmp_path / "keys", FQRN), RepositorySettings(), INIT)
    guarded([blob_path(SHARED)])
    name = Reference.parse(table.hold(Image([SHARED])))
    layer = table.registry.resolve(name).manifest.layers[0]
    told = Workplace(store.as_uri(), FQRN, tmp_path / "cache", 1, tmp_path / "registries.yaml")
    wanted = LayerWish(name, layer, Digest.parse(SHARED.diff_id), "mine")
    assert b"canary" not in pickle.dumps((told, wanted))
    assert fetch_layer(told, wanted).counters.regular == 1
    with pytest.raises(AccessDenied):
        fetch_layer(replace(told, cache=tmp_path / "other"), replace(wanted, credentials=None))


def test_an_image_that_was_replaced_and_deleted_meanwhile_fails_typed_and_is_taken_anew_by_the_next_pass(table: Desk):
    name = table.hold(IMAGES[0])
    steps = table.plan(name)
    del table.server.content[f"/v2/some/image/manifests/{builders.sha256(IMAGES[0].manifest)}"]
    table.hold(IMAGES[1])
    (failed,) = table.run(steps).failed
    assert isinstance(failed.error, NoSuchImage)
    assert statuses(table.convert(name)) == ["published"]
    assert table.errors() == []


# --- the report ----------------------------------------------------------------------------


def test_the_report_tells_bytes_seconds_and_what_was_shared(table: Desk, tmp_path):
    names = [table.hold(image, f"t{number}") for number, image in enumerate(IMAGES)]
    (first,) = passed(table, tmp_path, names[0]).to_json("f")["images"]
    own = [len(image.layers[1].blob) for image in IMAGES]
    shared = len(SHARED.blob)
    assert (first["fetched_bytes"], first["layer_bytes"], first["shared_fraction"]) == (shared + own[0],) * 2 + (0.0,)
    assert first["seconds"] > 0
    report = passed(table, tmp_path, *names)
    values = report.to_json("f")
    assert [image["status"] for image in values["images"]] == ["unchanged", *["published"] * 3]
    for image, size in zip(values["images"][1:], own[1:], strict=True):
        assert image["fetched_bytes"] == size
        assert image["shared_fraction"] == pytest.approx(shared / (shared + size), abs=0.001)
        assert image["warnings"] == []
    assert (values["revision"], values["stopped"]) == (3, False)


def test_a_layer_that_two_new_images_share_is_on_the_account_of_one(table: Desk):
    names = [table.hold(image, f"t{number}") for number, image in enumerate(IMAGES)]
    efforts = [outcome.effort for outcome in table.convert(*names).outcomes]
    assert sum(effort.fetched_bytes for effort in efforts) == len(SHARED.blob) + sum(
        len(image.layers[1].blob) for image in IMAGES
    )


# --- the end on demand ---------------------------------------------------------------------


@contextmanager
def stopped_after(seconds: float):
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
        timer.join()


class StoppedBy(Unobserved):
    """Sets *stop* when all *layers* are ingested."""

    def __init__(self, stop: threading.Event, layers: set[Digest]) -> None:
        self._stop, self._layers = stop, layers

    @contextmanager
    def layer(self, digest: Digest, size: int) -> Iterator[LayerProgress]:
        yield LayerProgress()
        self._layers.discard(digest)
        if not self._layers:
            self._stop.set()


def blob_path(layer: Layer) -> str:
    return f"/v2/some/image/blobs/{builders.sha256(layer.blob)}"


def test_a_pass_that_is_stopped_commits_what_is_complete_and_waits_for_no_silent_registry(table: Desk, tmp_path):
    names = [table.hold(image, f"t{number}") for number, image in enumerate(IMAGES[:2])]
    silent = Answer(body=IMAGES[0].layers[1].blob, silence_seconds=10 * ENDS_SECONDS)
    table.server.say_always(blob_path(IMAGES[0].layers[1]), silent)
    registry = Registry(Transport(idle_seconds=10 * ENDS_SECONDS, attempts=2))
    stop, started = threading.Event(), time.monotonic()
    observer = StoppedBy(stop, {Digest.parse(builders.sha256(layer.blob)) for layer in IMAGES[1].layers})
    report = passed(table, tmp_path, *names, stop=stop, registry=registry, observer=observer)
    assert time.monotonic() - started < ENDS_SECONDS
    assert statuses(report) == ["stopped", "published"]
    assert (report.stopped, report.failed, report.revision) == (True, [], 2)
    assert table.errors() == []
    table.server._script.clear()
    table.server.seen.clear()
    assert statuses(passed(table, tmp_path, *names)) == ["published", "unchanged"]
    assert blob_path(SHARED) not in table.blobs_asked()
    assert table.errors() == []


def test_a_download_that_is_stopped_goes_on_where_it_was(table: Desk, tmp_path):
    big = Layer.of(builders.file("big", noise(9, 6 << 20)), compression="none")
    name = table.hold(Image([big]))
    stop = threading.Event()

    class Stopping(LayerProgress):
        seen = 0

        def advance(self, size: int) -> None:
            self.seen += size
            if self.seen >= 3 << 20:
                stop.set()

    class Watching(Unobserved):
        def layer(self, digest, size):
            return nullcontext(Stopping())

    report = passed(table, tmp_path, name, stop=stop, observer=Watching())
    assert (statuses(report), report.revision) == (["stopped"], None)
    table.server.seen.clear()
    assert statuses(passed(table, tmp_path, name)) == ["published"]
    (seen,) = [seen for seen in table.server.seen if seen.path == blob_path(big)]
    assert int(seen.headers["Range"].removeprefix("bytes=").removesuffix("-")) >= 3 << 20
    assert table.errors() == []


def test_a_pass_that_is_stopped_while_it_asks_does_nothing(table: Desk, tmp_path):
    name = table.hold(IMAGES[0])
    table.server.say_always("/v2/some/image/manifests/tag", Answer(silence_seconds=10 * ENDS_SECONDS))
    registry = Registry(Transport(idle_seconds=60, attempts=2))
    started = time.monotonic()
    with stopped_after(0.3) as stop:
        report = passed(table, tmp_path, name, stop=stop, registry=registry)
    assert time.monotonic() - started < ENDS_SECONDS
    assert (report.outcomes, report.revision, report.stopped) == ((), None, True)


def test_a_pass_that_is_stopped_before_it_begins_asks_nobody(table: Desk, tmp_path):
    stop = threading.Event()
    stop.set()
    name = table.hold(IMAGES[0])
    assert passed(table, tmp_path, name, stop=stop).stopped
    assert table.server.seen == []


# --- threads that may be left behind -------------------------------------------------------


def test_threads_do_all_that_they_were_given_and_end_with_their_block():
    with Threads(3, "test", Stop()) as pool:
        results = [pool.submit(pow, number, 2) for number in range(50)]
    assert [result.result(0) for result in results] == [number**2 for number in range(50)]
    assert not any(thread.is_alive() for thread in pool._threads)


def test_what_a_task_raises_comes_to_who_waits():
    with Threads(1, "test", Stop()) as pool:
        failed = pool.submit(lambda: 1 // 0)
        late = pool.submit(lambda: (_ for _ in ()).throw(TimeoutError("its own")))
    with pytest.raises(ZeroDivisionError):
        Stop().result(failed)
    with pytest.raises(TimeoutError, match="its own"):
        Stop().result(late)


def test_a_stop_ends_what_has_not_begun_and_waits_for_the_rest_no_longer_than_its_grace():
    event, clock = threading.Event(), iter([0.0, *[LAST_SECONDS + 1.0] * 100])
    stop = Stop(event, lambda: next(clock))
    release = threading.Event()
    with Threads(1, "test", stop) as pool:
        busy, waiting = pool.submit(release.wait), pool.submit(int)
        event.set()
        with pytest.raises(Stopped):
            stop.result(busy)
    release.set()
    with pytest.raises(Stopped):
        waiting.result(60)


def test_an_error_in_the_block_ends_it_without_telling_the_caller_of_the_event():
    event, clock = threading.Event(), iter([0.0, *[LAST_SECONDS] * 100])
    pool = Threads(1, "test", Stop(event, lambda: next(clock)))
    begun, release = threading.Event(), threading.Event()
    pool.submit(lambda: begun.set() or release.wait(60))
    begun.wait()
    late = pool.submit(int)
    pool.__exit__(KeyError, KeyError(), None)
    release.set()
    with pytest.raises(Stopped):
        late.result(60)
    assert not event.is_set()
