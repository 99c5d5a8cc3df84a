"""`ducc mount --all`: a directory in which every configured repository is, as soon as somebody touches its name."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ducc.client.mountpoint import holder, our_mounts
from ducc.storage.local import LocalStore
from tests import signing
from tests.end_to_end.test_client_configuration import Configured
from tests.end_to_end.test_mount import Site, raises_errno, site, wait_for
from tests.unit.client.publisher import Publisher

__all__ = ["site"]  # a fixture

OTHER = "other.example.org"
TEXT = b"content\n" * 10_000


class Automounted(Configured):
    """Two repositories, one server; a third name is configured and leads nowhere."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        if not Path("/dev/autofs").exists() or "\tautofs\n" not in Path("/proc/filesystems").read_text():
            pytest.skip("the kernel has no automounter: modprobe autofs4, or give the container --device /dev/autofs")
        site.publish({b"/file": site.publisher.file(b"file", TEXT), b"/late": site.publisher.file(b"late", TEXT)})
        self.publish_other({b"/other": b"other\n"})
        self.top = site.directory / "cvmfs"
        self.top.mkdir()

    def publish_other(self, files: dict[bytes, bytes]) -> None:
        store = LocalStore(self.site.directory / "srv" / OTHER)
        with store.session():
            publisher = Publisher(store, now=datetime.now(UTC), fqrn=OTHER)
            publisher.public_key(self.etc / "keys" / f"{OTHER}.pub")
            publisher.publish({path: publisher.file(os.path.basename(path), data) for path, data in files.items()})

    def begin(self, *options: object) -> None:
        log = self.site.directory / "log"
        self.site.ducc("mount", "--all", self.top, "--etc", self.etc, *options, DUCC_CACHE=str(log))

    @property
    def one(self) -> Path:
        return self.top / signing.FQRN

    @property
    def log(self) -> str:
        return (self.site.directory / "log" / "automount.log").read_text()

    def mounted(self) -> list[str]:
        return sorted(entry.source for entry in our_mounts() if Path(entry.mountpoint).parent == self.top)

    def processes(self) -> list[int]:
        """Who watches, and who answers the kernel."""
        worker = holder(self.top)
        assert worker is not None
        return [int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1]), worker]


@pytest.fixture
def automounted(site: Site) -> Iterator[Automounted]:
    made = Automounted(site)
    yield made
    if os.path.ismount(made.top):
        site.ducc("umount", made.top)


def test_each_repository_is_there_when_it_is_touched_first(automounted: Automounted) -> None:
    automounted.begin()
    assert os.listdir(automounted.top) == []
    assert (automounted.one / "file").read_bytes() == TEXT
    assert automounted.mounted() == [signing.FQRN]
    assert (automounted.top / OTHER / "other").read_bytes() == b"other\n"
    assert sorted(os.listdir(automounted.top)) == [OTHER, signing.FQRN]
    assert signing.FQRN in automounted.client("status", automounted.one)


def test_many_who_touch_a_name_at_once_get_one_mount(automounted: Automounted) -> None:
    automounted.begin()
    readers = [
        subprocess.Popen(["/bin/cat", automounted.one / "file"], stdout=subprocess.PIPE) for _ in range(8)
    ]  # fmt: skip
    assert [reader.communicate(timeout=60)[0] for reader in readers] == [TEXT] * 8
    assert automounted.mounted() == [signing.FQRN]


def test_names_that_nobody_configured_or_published_are_not_there(automounted: Automounted) -> None:
    automounted.begin()
    for name in (".git", "autorun.inf", "nothing.example.org", "x" * 255):
        with raises_errno(2):
            os.listdir(automounted.top / name)
    assert os.listdir(automounted.top) == []
    assert "could not be mounted: name=nothing.example.org" in automounted.log
    automounted.write("default.local", f"CVMFS_STRICT_MOUNT=yes\nCVMFS_REPOSITORIES={OTHER}\n")
    with raises_errno(2):
        os.listdir(automounted.one)
    assert os.listdir(automounted.top / OTHER) == ["other"]


def test_what_nobody_uses_goes_and_comes_back(automounted: Automounted) -> None:
    automounted.begin("--idle", 1)
    with (automounted.one / "file").open("rb") as opened:
        assert os.listdir(automounted.top / OTHER) == ["other"]
        wait_for(lambda: automounted.mounted() == [signing.FQRN])
        assert opened.read() == TEXT
    wait_for(lambda: automounted.mounted() == [])
    wait_for(lambda: os.listdir(automounted.top) == [])
    assert (automounted.one / "file").read_bytes() == TEXT


def test_who_answers_the_kernel_may_be_killed(automounted: Automounted) -> None:
    automounted.begin()
    with (automounted.one / "file").open("rb") as opened:
        _, killed = automounted.processes()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: holder(automounted.top) not in (None, killed))
        wait_for(lambda: automounted.log.count("mounting what is touched") == 2)
        assert os.listdir(automounted.top / OTHER) == ["other"]
        assert opened.read() == TEXT
    assert (automounted.one / "late").read_bytes() == TEXT


def test_a_directory_left_by_the_death_of_everybody_is_taken_over(automounted: Automounted) -> None:
    automounted.begin()
    with (automounted.one / "file").open("rb") as opened:
        for process in automounted.processes():
            os.kill(process, signal.SIGKILL)
        wait_for(lambda: holder(automounted.top) is None)
        automounted.begin()
        assert opened.read() == TEXT
        assert os.listdir(automounted.top / OTHER) == ["other"]
        assert (automounted.one / "late").read_bytes() == TEXT
    assert automounted.mounted() == [OTHER, signing.FQRN]
    for process in automounted.processes():
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: holder(automounted.top) is None)
    automounted.site.ducc("umount", automounted.top)
    assert automounted.mounted() == []
    assert not os.path.ismount(automounted.top)


def test_a_repository_with_configuration_comes_first(automounted: Automounted) -> None:
    automounted.publish_other({b"/etc/cvmfs/config.d/repo.example.org.conf": b"CVMFS_MAGIC_XATTRS_VISIBILITY=always\n"})
    automounted.write("default.local", f"CVMFS_CONFIG_REPOSITORY={OTHER}\nCVMFS_MOUNT_DIR={automounted.top}\n")
    automounted.begin()
    assert "user.fqrn" in os.listxattr(automounted.one / "file")
    assert automounted.mounted() == [OTHER, signing.FQRN]


def test_it_is_not_unmounted_while_somebody_uses_it(automounted: Automounted) -> None:
    automounted.begin()
    with (automounted.one / "file").open("rb") as opened:
        assert "busy" in automounted.site.ducc("umount", automounted.top, status=55).stderr
        assert opened.read() == TEXT
    processes = automounted.processes()
    automounted.site.ducc("umount", automounted.top)
    assert not os.path.ismount(automounted.top)
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))
    assert os.listdir(automounted.top) == []


def test_told_to_end_it_takes_everything_with_it(automounted: Automounted) -> None:
    automounted.begin()
    assert (automounted.one / "file").read_bytes() == TEXT
    watcher, worker = automounted.processes()
    os.kill(watcher, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{worker}").exists())
    wait_for(lambda: automounted.mounted() == [])


def test_a_server_that_is_back_is_asked_again(automounted: Automounted) -> None:
    """Not at once, so that nobody waits for it each time."""
    automounted.begin()
    automounted.site.stop_serving()
    with raises_errno(2):
        os.listdir(automounted.one)
    began = time.monotonic()
    with raises_errno(2):
        os.listdir(automounted.one)
    asked = automounted.log.count("could not be mounted")
    assert asked == 1 or time.monotonic() - began > 30
    automounted.site.serve()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--all", "nowhere"], "is not a directory"),
        (["--all", ".", "--url", "http://a/x"], "--all mounts what the configuration says"),
        (["x.y", ".", "--all", "."], "--all mounts what the configuration says"),
        (["--all", ".", "--idle", "soon"], "wanted: seconds"),
        ([], "required: FQRN, DIR"),
    ],
)
def test_what_can_not_be_meant_is_refused(site: Site, words: list[str], reason: str) -> None:
    assert reason in site.ducc("mount", *words, status=2).stderr
