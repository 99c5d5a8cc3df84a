import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ducc.catalog.history import History, Tag
from ducc.client.blacklist import Blacklist, Blacklisted
from ducc.client.breadcrumb import Breadcrumb, Breadcrumbs
from ducc.client.cache import Cache
from ducc.client.fetch import Fetcher
from ducc.client.head import Head
from ducc.client.opening import MountSettings
from ducc.client.pin import NoSuchRevision, Pin
from ducc.cvmfs.manifest import Manifest
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.cvmfs.signature import load_certificate
from ducc.cvmfs.whitelist import WhitelistExpired, fingerprint
from ducc.errors import BadInput, DuccError
from ducc.storage.base import MANIFEST, WHITELIST, StoreUnavailable
from ducc.storage.memory import MemoryStore
from tests import signing
from tests.unit.client.publisher import Publisher


class Shy(MemoryStore):
    """A store that can be made to answer no more."""

    silent = False

    def get(self, name: ObjectName) -> bytes:
        if self.silent:
            raise StoreUnavailable("silent")
        return super().get(name)

    def read_file(self, name: str) -> bytes | None:
        if self.silent:
            raise StoreUnavailable("silent")
        return super().read_file(name)


@pytest.fixture
def store() -> Shy:
    return Shy()


@pytest.fixture
def publisher(store: Shy) -> Publisher:
    return Publisher(store)


def head(
    store: Shy,
    directory: Path,
    pin: Pin | None = None,
    blacklist: Blacklist | None = None,
    clock: Callable[[], datetime] = lambda: signing.NOW,
) -> Head:
    keys, _ = signing.keys(signing.FQRN, 0)
    return Head(
        signing.FQRN, store, Fetcher(store, Cache(directory)), [keys.master_public_key], clock,
        breadcrumbs=Breadcrumbs(directory, signing.FQRN), pin=pin, blacklist=blacklist,
    )  # fmt: skip


class Two(Shy):
    """Two servers that differ in root files: what the first has is `lagging`."""

    def __init__(self) -> None:
        super().__init__()
        self.lagging: dict[str, bytes] = {}

    def read_file_checked(self, name: str, check: Callable[[bytes], None]) -> bytes | None:
        for files in (self.lagging, self.files):
            if name in files:
                try:
                    check(files[name])
                    return files[name]
                except DuccError as error:
                    wrong = error
        raise wrong


# --- several servers -------------------------------------------------------------------------


def test_what_one_server_has_wrong_is_asked_of_another(tmp_path: Path) -> None:
    store = Two()
    publisher = Publisher(store)
    published = publisher.publish({})
    other = Publisher(MemoryStore(), now=signing.NOW - timedelta(days=60))
    store.lagging = {
        MANIFEST: b"<html>",
        WHITELIST: other.store.read_file(WHITELIST) or b"",  # expired
    }
    assert head(store, tmp_path).first() == published
    store.lagging[MANIFEST] = store.files[MANIFEST].replace(signing.FQRN.encode(), b"another.one")
    assert head(store, tmp_path).first() == published
    store.files[WHITELIST] = store.lagging[WHITELIST]
    with pytest.raises(WhitelistExpired):
        head(store, tmp_path).first()


# --- off-line, and back ----------------------------------------------------------------------


def test_without_a_server_the_state_that_was_believed_last_is_believed(
    store: Shy, publisher: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.silent = True
    with pytest.raises(StoreUnavailable):
        head(store, tmp_path).first()
    store.silent = False
    published = publisher.publish({})
    online = head(store, tmp_path).first()
    assert online == published
    store.silent = True
    offline = head(store, tmp_path)
    found = offline.first()
    assert (found.root_hash, found.revision, found.timestamp) == (
        published.root_hash,
        published.revision,
        published.timestamp,
    )
    assert offline.problem == "silent"
    store.silent = False
    newer = publisher.publish({b"/x": publisher.file(b"x")})
    assert offline.newer(found) == newer
    assert not offline.problem


def test_what_is_older_than_what_was_believed_is_refused_at_the_next_start_too(
    store: Shy, publisher: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish({})
    old = store.files[MANIFEST]
    new = publisher.publish({b"/x": publisher.file(b"x")})
    assert head(store, tmp_path).first() == new
    store.files[MANIFEST] = old
    assert head(store, tmp_path).first().root_hash == new.root_hash
    assert "old revision" in caplog.text


def test_what_each_question_led_to_is_kept_and_when_it_was_begun(
    store: Shy, publisher: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = publisher.publish({})
    asking = head(store, tmp_path)
    assert asking.first() == first
    assert asking.newer(first) is None
    second = publisher.publish({b"/x": publisher.file(b"x")})
    before = time.monotonic()
    assert asking.newer(first) == asking.offered == second
    assert before < asking.answered_as_of == asking.asked_at < time.monotonic()
    store.silent = True
    with pytest.raises(StoreUnavailable):
        asking.newer(second)
    assert (asking.answered_as_of, asking.offered, asking.problem) == (asking.asked_at, None, "silent")


@pytest.mark.parametrize("text", ["", "nonsense", "ab" * 20, "ab" * 20 + "T", "ab" * 20 + "TxR1", "\0" * 100])
def test_a_damaged_breadcrumb_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / f"cvmfschecksum.{signing.FQRN}").write_text(text)
    assert Breadcrumbs(tmp_path, signing.FQRN).read() is None


def test_breadcrumbs_are_the_stock_clients(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    crumbs = Breadcrumbs(tmp_path, "a.b")
    crumbs.drop(Breadcrumb(b"\xab" * 20, 1234, 5))
    assert (tmp_path / "cvmfschecksum.a.b").read_text() == "ab" * 20 + "T1234R5"
    assert crumbs.read() == Breadcrumb(b"\xab" * 20, 1234, 5)
    (tmp_path / "cvmfschecksum.a.b").write_text("ab" * 20 + "T1234")
    assert crumbs.read() == Breadcrumb(b"\xab" * 20, 1234, 0)
    Breadcrumbs(tmp_path / "nowhere", "a.b").drop(Breadcrumb(b"\xab" * 20, 1, 1))
    assert "start off-line" in caplog.text


def test_what_a_killed_process_has_left_of_a_breadcrumb_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left, living = (tmp_path / f"cvmfschecksum.a.b.{pid}.new" for pid in (gone.pid, os.getppid()))
    for path in (left, living):
        path.touch()
    Breadcrumbs(tmp_path, "a.b").drop(Breadcrumb(b"\xab" * 20, 1, 1))
    assert (left.exists(), living.exists()) == (False, True)


# --- clocks ----------------------------------------------------------------------------------

YEAR = timedelta(days=365)


def test_a_clock_that_is_a_year_ahead_finds_the_whitelist_expired(
    store: Shy, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish({})
    with pytest.raises(WhitelistExpired, match=r"this machine's clock says 2027-03-04 .* or correct the clock"):
        head(store, tmp_path, clock=lambda: signing.NOW + YEAR).first()
    assert Breadcrumbs(tmp_path, signing.FQRN).read() is None


def test_a_clock_that_is_a_year_behind_changes_nothing(store: Shy, publisher: Publisher, tmp_path: Path) -> None:
    published = publisher.publish({})
    asking = head(store, tmp_path, clock=lambda: signing.NOW - YEAR)
    assert asking.first() == published
    newest = publisher.publish({b"/x": publisher.file(b"x")})
    assert asking.newer(published) == newest


def test_when_the_clock_steps_what_was_believed_stays_and_is_said_to_be_stale(
    store: Shy, publisher: Publisher, tmp_path: Path
) -> None:
    published = publisher.publish({})
    step = timedelta()
    asking = head(store, tmp_path, clock=lambda: signing.NOW + step)
    assert asking.first() == published
    newest = publisher.publish({b"/x": publisher.file(b"x")})
    step = YEAR
    with pytest.raises(WhitelistExpired):
        asking.newer(published)
    assert "correct the clock" in asking.problem
    step = timedelta()
    assert asking.newer(published) == newest
    assert asking.problem == ""


# --- what is pushed --------------------------------------------------------------------------


def test_what_is_pushed_is_believed_as_what_was_asked_for(store: Shy, publisher: Publisher, tmp_path: Path) -> None:
    old = publisher.publish({})
    old_bytes = store.files[MANIFEST]
    asking = head(store, tmp_path)
    assert asking.first() == old
    new = publisher.publish({b"/x": publisher.file(b"x")})
    pushed, store.files[MANIFEST] = store.files[MANIFEST], old_bytes  # caches on the way still have the old one
    assert asking.newer(old, pushed) == new
    with pytest.raises(DuccError):
        asking.newer(new, old_bytes)
    for bad in (b"nonsense", pushed[:-3] + b"abc", pushed.replace(b"Nrepo", b"Nother")):
        with pytest.raises(DuccError):
            asking.newer(old, bad)


# --- pins ------------------------------------------------------------------------------------


def tagged(publisher: Publisher) -> list[Manifest]:
    manifests = [publisher.publish({b"/%d" % number: publisher.file(b"%d" % number)}) for number in range(3)]
    tags = [Tag(f"v{one.revision}", one.root_hash, one.revision, one.timestamp) for one in manifests]
    history = History(signing.FQRN, [*tags, Tag("tree-x", bytes(20), 0, manifests[1].timestamp)])
    publisher.publish({}, history=publisher.put(history.to_bytes(), Suffix.HISTORY))
    return manifests


def test_a_pinned_revision_is_found_and_never_left(store: Shy, publisher: Publisher, tmp_path: Path) -> None:
    manifests = tagged(publisher)
    times = [datetime.fromtimestamp(one.timestamp, UTC) for one in manifests]
    for pin, wanted in (
        (Pin(tag="v2"), 1),
        (Pin(before=times[1]), 1),
        (Pin(before=times[2] + timedelta(days=1)), 2),
        (Pin(root_hash=manifests[0].root_hash), 0),
    ):
        pinned = head(store, tmp_path, pin)
        found = pinned.first()
        assert found.root_hash == manifests[wanted].root_hash, pin
        assert pinned.newer(found) is None
    assert not (tmp_path / f"cvmfschecksum.{signing.FQRN}").exists()


def test_a_hash_needs_no_server(store: Shy, tmp_path: Path) -> None:
    store.silent = True
    assert head(store, tmp_path, Pin(root_hash=b"\1" * 20)).first().root_hash == b"\1" * 20


def test_a_revision_that_is_not_there_is_named(store: Shy, publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish({})
    with pytest.raises(NoSuchRevision, match="no tags"):
        head(store, tmp_path, Pin(tag="v1")).first()
    tagged(publisher)
    with pytest.raises(NoSuchRevision, match="no revision v9"):
        head(store, tmp_path, Pin(tag="v9")).first()
    with pytest.raises(NoSuchRevision, match="no revision of 2020-01-01T00:00:00Z or before"):
        head(store, tmp_path, Pin(before=datetime(2020, 1, 1, tzinfo=UTC))).first()


# --- the blacklist ---------------------------------------------------------------------------


def test_blacklisted_certificates_and_revisions_are_refused(store: Shy, publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish({})
    mark = fingerprint(load_certificate(publisher.keys.certificate_pem))
    file = tmp_path / "blacklist"
    for text, refused in (
        (f"{mark}\n", True),
        (f"  {mark.lower()} # stolen\n", True),
        (f"<{signing.FQRN} 2\n", True),
        (f"<{signing.FQRN} 1\n", False),
        (f"<other.example.org 9\n# {mark}\n\n", False),
    ):
        file.write_text(text)
        asking = head(store, tmp_path, blacklist=Blacklist.read(file))
        if refused:
            with pytest.raises(Blacklisted):
                asking.first()
        else:
            asking.first()
    file.write_text("<nothing\n")
    with pytest.raises(BadInput, match="<FQRN REVISION"):
        Blacklist.read(file)
    assert Blacklist.read(tmp_path / "nowhere") == Blacklist()


# --- how often to ask ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "published", "seconds"),
    [
        ({}, 240, 240),
        ({}, 1, 5),
        ({"max_ttl_seconds": 60}, 240, 60),
        ({"max_ttl_seconds": 600}, 240, 240),
        ({"auto_update": False}, 240, None),
        ({"pin": Pin(tag="v1")}, 240, None),
    ],
)
def test_how_long_a_revision_is_good_for(given: dict, published: int, seconds: int | None) -> None:
    settings = MountSettings("a.b", Path("/a"), MemoryStore(), [], Path("/c"), **given)
    assert settings.pause_seconds(published) == seconds
