"""The mount as the kernel shows it: a small repository of every kind of entry, served, mounted, changed and broken.

Images and programs from a mount are `test_main_job`'s business; here it is what a file system owes to whoever uses it.
"""

import errno
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ducc.catalog.tree import Directory, Node
from ducc.cvmfs import xattrs
from ducc.cvmfs.entry import Entry
from ducc.cvmfs.objectname import ObjectName, Suffix
from ducc.storage.local import LocalStore
from tests import signing
from tests.console import Console, stop
from tests.end_to_end.overlay import overlay
from tests.memory import directory_entry, special, symlink
from tests.needs import need_fuse, need_root
from tests.trees import scan
from tests.unit.client.publisher import Publisher

PATIENCE_SECONDS = 60
BIG_PIECES = [os.urandom(1_000_000) for _ in range(4)]
OPAQUE = xattrs.encode([(b"trusted.overlay.opaque", b"y"), (b"user.overlay.opaque", b"y")])


@dataclass
class Site:
    """A repository, its server, and a client's machine."""

    directory: Path
    ducc: Console
    publisher: Publisher
    server: "subprocess.Popen[bytes] | None" = None
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)  # of `mount`

    @property
    def root(self) -> Path:
        return self.directory / "mnt"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    @property
    def repository(self) -> Path:
        return self.directory / "srv" / signing.FQRN

    @property
    def options(self) -> list[object]:
        return ["--public-key", self.directory / "key.pub", "--cache", self.cache]

    def serve(self) -> None:
        log = self.directory / "serve.log"
        where = f"file://{self.directory}/srv"
        self.server = self.ducc.start("serve", "--storage", where, "--port", self.port, log=log)
        self.port = int(wait_for(lambda: re.search(r":(\d+)/cvmfs/", log.read_text()))[1])

    def stop_serving(self) -> None:
        assert self.server is not None
        stop(self.server)

    def mount(self, *options: object) -> None:
        url = f"http://127.0.0.1:{self.port}/cvmfs/{signing.FQRN}"
        self.ducc("mount", signing.FQRN, self.root, "--url", url, *self.options, *options, **self.environment)

    def daemon(self) -> int:
        """Process id of whoever answers the mount."""
        found = self.processes()
        return next((process for process in found if _parent(process) in found), found[0])

    def processes(self) -> list[int]:
        """Whoever answers the mount, and whoever watches that; the latter first."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"mount" in words and os.fsencode(self.root) in words:
                found.append(int(process.name))
        assert found, "no process answers the mount"
        return sorted(found)

    def publish(self, nodes: Mapping[bytes, Node], *nested: bytes) -> None:
        self.publisher.publish(nodes, nested)

    def publish_and_follow(self, nodes: Mapping[bytes, Node], *nested: bytes) -> None:
        """Publish, and wait until the mount shows the new revision."""
        log = self.cache / f"{signing.FQRN}.log"
        seen = log.read_text().count("new revision")
        self.publish(nodes, *nested)
        os.kill(self.daemon(), signal.SIGHUP)
        wait_for(lambda: log.read_text().count("new revision") > seen)

    def object_file(self, entry: Entry) -> Path:
        assert entry.content is not None
        return self.repository / ObjectName(entry.content).path


@pytest.fixture
def site(tmp_path: Path, ducc: Console) -> Iterator[Site]:
    need_root()
    need_fuse()
    store = LocalStore(tmp_path / "srv" / signing.FQRN)
    with store.session():
        publisher = Publisher(store, now=datetime.now(UTC))
        publisher.public_key(tmp_path / "key.pub")
        site = Site(tmp_path, ducc, publisher)
        site.root.mkdir()
        site.serve()
        yield site
    if os.path.ismount(site.root):
        ducc("umount", site.root)


def wait_for(condition: Callable[[], object]) -> object:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


@contextmanager
def raises_errno(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def everything(publisher: Publisher) -> dict[bytes, Node]:
    """One of every kind, with every attribute that the format can hold."""
    return {
        b"/dir": Directory(directory_entry(b"dir", mode=stat.S_IFDIR | 0o1775, uid=3, gid=4, mtime=1_000_000_000)),
        b"/dir/file": publisher.file(b"file", b"content\n", mode=stat.S_IFREG | 0o4751, uid=1000, gid=65534),
        b"/dir/empty": publisher.file(b"empty", b"", mtime=1_234_567_890, mtime_ns=987_654_321),
        b"/dir/big": publisher.chunked(b"big", *BIG_PIECES),
        b"/dir/link": symlink(b"link", b"../else/where"),
        b"/dir/one": publisher.file(b"one", b"same", link_group=1),
        b"/dir/two": publisher.file(b"two", b"same", link_group=1),
        b"/dir/null": special(b"null", stat.S_IFCHR, os.makedev(1, 3)),
        b"/dir/disk": special(b"disk", stat.S_IFBLK, os.makedev(259, 300)),
        b"/dir/whiteout": special(b"whiteout", stat.S_IFCHR),
        b"/dir/fifo": special(b"fifo", stat.S_IFIFO),
        b"/dir/socket": special(b"socket", stat.S_IFSOCK),
        b"/dir/hidden": publisher.file(b"hidden", b"found by name", hidden=True),
        b"/dir/\xff\xfe name": publisher.file(b"\xff\xfe name", b"not UTF-8"),
        b"/dir/" + b"n" * 255: publisher.file(b"n" * 255, b"longest name"),
        b"/dir/attributed": publisher.file(
            b"attributed", b"x", xattrs=xattrs.encode([(b"user.note", b"read me"), (b"security.capability", bytes(20))])
        ),
    }


# --- what is shown -------------------------------------------------------------------------


def test_every_kind_of_entry_is_shown_as_it_was_published(site: Site) -> None:
    nodes = everything(site.publisher)
    site.publish(nodes, b"/dir")
    site.mount()
    top = os.fsencode(site.root) + b"/dir"
    shown = os.listdir(top)
    assert sorted(shown) == sorted(path[5:] for path in nodes if path.startswith(b"/dir/") and b"hidden" not in path)
    status = os.lstat(top)
    assert (status.st_mode, status.st_uid, status.st_gid, status.st_mtime) == (stat.S_IFDIR | 0o1775, 3, 4, 1e9)
    status = os.lstat(top + b"/file")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size) == (0o4751, 1000, 65534, 8)
    assert status.st_blocks == 1
    assert os.lstat(top + b"/empty").st_mtime_ns == 1_234_567_890_987_654_321
    assert os.readlink(top + b"/link") == b"../else/where"
    assert os.lstat(top + b"/link").st_size == len(b"../else/where")
    for name, device in ((b"null", (1, 3)), (b"disk", (259, 300)), (b"whiteout", (0, 0))):
        status = os.lstat(top + b"/" + name)
        assert (os.major(status.st_rdev), os.minor(status.st_rdev), status.st_size) == (*device, 0)
    assert stat.S_ISFIFO(os.lstat(top + b"/fifo").st_mode)
    assert stat.S_ISSOCK(os.lstat(top + b"/socket").st_mode)
    for name, data in ((b"hidden", b"found by name"), (b"\xff\xfe name", b"not UTF-8"), (b"n" * 255, b"longest name")):
        assert Path(os.fsdecode(top + b"/" + name)).read_bytes() == data
    assert os.statvfs(site.root).f_namemax == 255


def test_names_of_one_file_share_an_inode(site: Site) -> None:
    site.publish(everything(site.publisher))
    site.mount()
    one, two = (os.stat(site.root / "dir" / name) for name in ("one", "two"))
    assert one.st_ino == two.st_ino
    assert one.st_nlink == two.st_nlink == 2
    with os.scandir(site.root / "dir") as listed:
        assert {entry.name: entry.inode() for entry in listed}["two"] == one.st_ino


def test_extended_attributes_are_listed_and_read(site: Site) -> None:
    overlaid = site.publisher.file(b"file", b"x", xattrs=OPAQUE)
    site.publish({**everything(site.publisher), b"/overlaid": overlaid})
    site.mount()
    path = site.root / "dir" / "attributed"
    assert set(os.listxattr(path)) == {"user.note", "security.capability"}
    assert os.getxattr(path, "user.note") == b"read me"
    with raises_errno(errno.ENODATA):
        os.getxattr(path, "user.other")
    assert os.listxattr(site.root / "dir" / "file") == []
    assert os.getxattr(site.root / "overlaid", "trusted.overlay.opaque") == b"y"
    listing = "import os; os.setuid(65534); print(os.listxattr('overlaid'))"
    seen = subprocess.run(
        ["/usr/bin/python3", "-c", listing], cwd=site.root, capture_output=True, text=True, check=True
    )
    assert seen.stdout.strip() == "['user.overlay.opaque']"


def test_nothing_can_be_changed(site: Site) -> None:
    site.publish(
        {b"/file": site.publisher.file(b"file", b"x"), b"/null": special(b"null", stat.S_IFCHR, os.makedev(1, 3))}
    )
    site.mount()
    for attempt in (
        lambda: (site.root / "new").write_text("x"),
        lambda: (site.root / "file").write_text("x"),
        lambda: (site.root / "file").unlink(),
        lambda: (site.root / "directory").mkdir(),
        lambda: os.chmod(site.root / "file", 0o777),
        lambda: os.setxattr(site.root / "file", "user.x", b"x"),
    ):
        with raises_errno(errno.EROFS):
            attempt()
    with raises_errno(errno.EACCES):  # a device can be seen, and not be used
        os.open(site.root / "null", os.O_RDONLY)


def test_permissions_are_those_of_the_entries(site: Site) -> None:
    site.publish({b"/secret": site.publisher.file(b"secret", b"x", mode=stat.S_IFREG | 0o600)})
    site.mount()
    reading = "import os; os.setuid(65534); print(len(os.listdir())); open('secret')"
    done = subprocess.run(["/usr/bin/python3", "-c", reading], cwd=site.root, capture_output=True, check=False)
    assert done.stdout == b"1\n"
    assert b"PermissionError" in done.stderr


def test_what_is_not_there_is_not_there(site: Site) -> None:
    site.publish({b"/file": site.publisher.file(b"file", b"x")})
    site.mount()
    for path, number in (
        ("nothing", errno.ENOENT),
        ("nothing/below", errno.ENOENT),
        ("file/below", errno.ENOTDIR),
        ("n" * 256, errno.ENAMETOOLONG),
    ):
        for _ in range(2):
            with raises_errno(number):
                os.stat(site.root / path)


def test_only_the_pieces_of_a_big_file_that_are_read_are_fetched(site: Site) -> None:
    big = site.publisher.chunked(b"big", *BIG_PIECES)
    site.publish({b"/big": big})
    site.mount()
    whole = b"".join(BIG_PIECES)
    descriptor = os.open(site.root / "big", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(descriptor, 1000, 2_500_000) == whole[2_500_000:2_501_000]
    cached = {
        chunk.digest.hex(): (site.cache / chunk.digest.hex()[:2] / chunk.digest.hex()[2:]) for chunk in big.chunks
    }
    wait_for(lambda: [path.exists() for path in cached.values()] == [False, False, True, False])
    assert os.pread(descriptor, 2000, 999_000) == whole[999_000:1_001_000]
    assert os.pread(descriptor, 10_000, len(whole) - 5) == whole[-5:]
    assert os.pread(descriptor, 10, len(whole) + 10) == b""
    os.close(descriptor)
    assert (site.root / "big").read_bytes() == whole


def test_ten_thousand_names_are_listed_each_once(site: Site) -> None:
    entry = site.publisher.file(b"", b"x")
    site.publish({b"/d/%05d" % number: entry._replace(name=b"%05d" % number) for number in range(10_000)})
    site.mount()
    assert sorted(os.listdir(site.root / "d")) == [f"{number:05d}" for number in range(10_000)]
    assert (site.root / "d" / "09999").read_bytes() == b"x"


def test_it_works_below_overlayfs_with_whiteouts_and_opaque_directories(site: Site, tmp_path: Path) -> None:
    publisher = site.publisher
    lower = {
        b"/etc/motd": publisher.file(b"motd", b"lower"),
        b"/etc/kept": publisher.file(b"kept", b"kept"),
        b"/etc/gone": publisher.file(b"gone", b"gone"),
        b"/var/old": publisher.file(b"old", b"old"),
    }
    upper = {
        b"/etc/motd": publisher.file(b"motd", b"upper"),
        b"/etc/gone": special(b"gone", stat.S_IFCHR),
        b"/var": Directory(directory_entry(b"var", xattrs=OPAQUE)),
        b"/var/new": publisher.file(b"new", b"new"),
    }
    site.publish({b"/l/1": publisher.bind(lower, b"1"), b"/l/2": publisher.bind(upper, b"2")}, b"/l")
    site.mount()
    layers = [site.root / "l" / "1", site.root / "l" / "2"]
    for writable in (False, True):
        with overlay(layers, tmp_path / f"overlay-{writable}", writable=writable) as merged:
            shown = {path: row.type for path, row in scan(merged).items()}
            assert set(shown) == {b"", b"etc", b"etc/kept", b"etc/motd", b"var", b"var/new"}
            assert (merged / "etc" / "motd").read_text() == "upper"
            if writable:
                (merged / "etc" / "kept").write_text("changed")
                (merged / "etc" / "motd").unlink()
                assert os.listdir(merged / "etc") == ["kept"]


# --- revisions -----------------------------------------------------------------------------


def test_a_new_revision_appears_and_open_files_keep_what_they_were_opened_with(site: Site) -> None:
    publisher = site.publisher
    old, same = publisher.file(b"changed", b"old content"), publisher.file(b"same", b"same")
    site.publish({b"/d/changed": old, b"/d/same": same, b"/d/gone": publisher.file(b"gone", b"x")}, b"/d")
    site.mount()
    place = site.root / "d"
    names = {name: os.stat(place / name).st_ino for name in os.listdir(place)}
    with raises_errno(errno.ENOENT):
        os.stat(place / "new")  # the kernel remembers that
    working_directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    with (place / "changed").open("rb") as opened, (place / "gone").open("rb") as removed:
        new = {b"/d/changed": publisher.file(b"changed", b"NEW CONTENT"), b"/d/new": publisher.file(b"new", b"new")}
        site.publish_and_follow({**new, b"/d/same": same._replace(mtime=77)}, b"/d")
        wait_for(lambda: sorted(os.listdir(place)) == ["changed", "new", "same"])
        wait_for(lambda: (place / "changed").read_bytes() == b"NEW CONTENT")
        assert (place / "new").read_bytes() == b"new"
        assert opened.read() == b"old content"
        assert os.fstat(opened.fileno()).st_size == len(b"old content")
        assert removed.read() == b"x"
    wait_for(lambda: os.stat(place / "same").st_mtime == 77)
    assert os.stat(place / "same").st_ino == names["same"]
    with raises_errno(errno.ENOENT):
        os.stat(place / "gone")
    assert sorted(os.listdir(working_directory)) == ["changed", "new", "same"]
    assert os.readlink(f"/proc/self/fd/{working_directory}") == str(place)
    os.close(working_directory)


def test_the_published_ttl_is_honoured_without_being_asked(site: Site) -> None:
    site.publisher.publish({b"/1": site.publisher.file(b"1")}, ttl_seconds=1)
    site.mount()
    assert os.listdir(site.root) == ["1"]
    site.publish({b"/2": site.publisher.file(b"2")})
    wait_for(lambda: os.listdir(site.root) == ["2"])


def test_readers_never_see_a_mixture_while_revisions_follow_one_another(site: Site) -> None:
    def revision(number: int) -> dict[bytes, Node]:
        data = b"%d\n" % number * 100_000
        return {b"/d/file": site.publisher.file(b"file", data), b"/d/%d" % number: site.publisher.file(b"n")}

    site.publish(revision(0), b"/d")
    site.mount()
    mixtures: list[bytes] = []
    done = threading.Event()

    def read_again_and_again() -> None:
        while not done.is_set():
            seen = set((site.root / "d" / "file").read_bytes().split())
            if len(seen) != 1:
                mixtures.append(b" ".join(seen))

    readers = [threading.Thread(target=read_again_and_again) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(1, 10):
        site.publish_and_follow(revision(number), b"/d")
    done.set()
    for reader in readers:
        reader.join()
    assert not mixtures
    wait_for(lambda: (site.root / "d" / "file").read_bytes().split()[0] == b"9")


# --- faults --------------------------------------------------------------------------------


def test_when_the_server_is_gone_what_was_read_can_be_read_and_the_rest_fails_soon(site: Site) -> None:
    publisher = site.publisher
    site.publish({b"/read": publisher.file(b"read", b"read"), b"/unread": publisher.file(b"unread", b"unread")})
    site.mount()
    assert (site.root / "read").read_bytes() == b"read"
    site.stop_serving()
    drop_page_cache(site.root / "read")
    assert (site.root / "read").read_bytes() == b"read"
    began = time.monotonic()
    with raises_errno(errno.EIO):
        (site.root / "unread").read_bytes()
    assert time.monotonic() - began < 60
    os.kill(site.daemon(), signal.SIGHUP)  # a refresh that fails changes nothing
    assert sorted(os.listdir(site.root)) == ["read", "unread"]
    site.serve()
    assert (site.root / "unread").read_bytes() == b"unread"


def test_a_damaged_object_is_an_error_and_is_never_kept(site: Site) -> None:
    entry = site.publisher.file(b"file", b"what should be read")
    site.publish({b"/file": entry})
    path = site.object_file(entry)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    site.mount()
    with raises_errno(errno.EIO):
        (site.root / "file").read_bytes()
    assert entry.content is not None
    assert not list(site.cache.glob(f"??/{entry.content.hex()[2:]}"))
    path.write_bytes(good)
    assert (site.root / "file").read_bytes() == b"what should be read"


def test_a_missing_catalog_is_an_error_of_its_subtree_only(site: Site) -> None:
    bound = site.publisher.bind({b"/x": site.publisher.file(b"x")}, b"image")
    site.publish({b"/image": bound, b"/file": site.publisher.file(b"file", b"fine")})
    path = site.repository / ObjectName(bound.ref.digest, Suffix.CATALOG).path
    good = path.read_bytes()
    path.unlink()
    site.mount()
    with raises_errno(errno.EIO):
        os.listdir(site.root / "image")
    assert (site.root / "file").read_bytes() == b"fine"
    path.write_bytes(good)
    assert os.listdir(site.root / "image") == ["x"]


def test_a_full_disk_slows_it_down_and_nothing_else(site: Site) -> None:
    site.cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", site.cache], check=True)
    try:
        data = os.urandom(1_000_000)
        site.publish({b"/big": site.publisher.file(b"big", data), b"/d/x": site.publisher.file(b"x", b"x")}, b"/d")
        site.mount()
        for _ in range(2):
            assert (site.root / "big").read_bytes() == data
            drop_page_cache(site.root / "big")
        assert (site.root / "d" / "x").read_bytes() == b"x"
        site.ducc("umount", site.root)
    finally:
        subprocess.run(["umount", "--lazy", site.cache], check=True)


def test_a_killed_daemon_leaves_what_umount_takes_away(site: Site) -> None:
    site.publish({b"/file": site.publisher.file(b"file", b"x")})
    site.mount()
    descriptor = os.open(site.root, os.O_RDONLY)
    for process in site.processes():
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: errno_of(lambda: os.stat(site.root / "file")) == errno.ENOTCONN)
    site.ducc("umount", site.root)
    assert not os.path.ismount(site.root)
    os.close(descriptor)
    site.mount()
    assert (site.root / "file").read_bytes() == b"x"


def test_umount_waits_for_the_end_and_a_term_signal_unmounts(site: Site) -> None:
    site.publish({b"/file": site.publisher.file(b"file", b"x")})
    site.mount()
    daemon = site.daemon()
    unmounted = site.ducc("umount", site.root)
    if "still use it" not in unmounted.stderr:  # in a namespace of another test
        wait_for(lambda: not is_running(daemon))
    assert "no repository is mounted" in site.ducc("umount", site.root, status=2).stderr
    site.mount()
    daemon = site.daemon()
    os.kill(daemon, signal.SIGTERM)
    wait_for(lambda: not is_running(daemon))
    assert not os.path.ismount(site.root)


def test_what_is_in_use_stays_mounted(site: Site) -> None:
    site.publish({b"/file": site.publisher.file(b"file", b"x")})
    site.mount()
    with (site.root / "file").open("rb") as opened:
        assert "busy" in site.ducc("umount", site.root, status=None).stderr
        assert opened.read() == b"x"


def test_a_mount_that_fails_says_why_in_one_line_and_leaves_nothing(site: Site) -> None:
    site.publish({b"/file": site.publisher.file(b"file", b"x")})
    url = f"http://127.0.0.1:{site.port}/cvmfs/{signing.FQRN}"
    other_key = site.directory / "other.pub"
    Publisher.public_key(FakeKeys(), other_key)  # type: ignore[arg-type]
    wrong = [
        [signing.FQRN, site.root, "--url", f"http://127.0.0.1:1/cvmfs/{signing.FQRN}", *site.options],
        [signing.FQRN, site.root, "--url", url.replace("repo.", "nothing."), *site.options],
        ["other.example.org", site.root, "--url", url, *site.options],
        [signing.FQRN, site.root, "--url", url, "--public-key", other_key, "--cache", site.cache],
        [signing.FQRN, site.root, "--url", url, "--public-key", "/nowhere", "--cache", site.cache],
        [signing.FQRN, site.directory / "nowhere", "--url", url, *site.options],
        [signing.FQRN, site.root, "--url", "ftp://x", *site.options],
        [signing.FQRN, site.root, *site.options],
        [signing.FQRN, site.root, "--url", url, *site.options, "--cache", site.root / "cache"],
    ]
    for words in wrong:
        result = site.ducc("mount", *words, status=None)
        assert result.status != 0
        assert re.fullmatch(r"ducc: .+\n", result.stderr), result.stderr
        assert not os.path.ismount(site.root)
    site.mount()
    again = site.ducc("mount", signing.FQRN, site.root, "--url", url, *site.options, status=None)
    assert again.status != 0
    assert "mounted already" in again.stderr


def test_in_the_foreground_it_stays_until_told_to_end(site: Site) -> None:
    site.publish({b"/file": site.publisher.file(b"file", b"x")})
    where = f"file://{site.directory}/srv"
    process = site.ducc.start("mount", signing.FQRN, site.root, "--storage", where, *site.options, "--foreground")
    wait_for(lambda: os.path.ismount(site.root))
    assert (site.root / "file").read_bytes() == b"x"
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0
    assert not os.path.ismount(site.root)


class FakeKeys:
    """Stands for a publisher with other keys."""

    keys = signing.keys(signing.FQRN, 1)[0]


def errno_of(attempt: Callable[[], object]) -> int | None:
    try:
        attempt()
    except OSError as error:
        return error.errno
    return None


def drop_page_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _parent(process: int) -> int:
    """Zero for one that has just ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
