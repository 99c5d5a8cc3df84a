"""Mounts that the stock client's configuration files describe, and the orders that a running mount takes."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ducc.catalog.history import History, Tag
from ducc.cvmfs.objectname import Suffix
from tests import signing
from tests.console import SCRIPT
from tests.end_to_end import stock
from tests.end_to_end.published import Published
from tests.end_to_end.test_mount import Site, site, wait_for
from tests.memory import symlink
from tests.needs import need_program, need_root

__all__ = ["site"]  # a fixture

PUSHED = "CVMFS_NOTIFICATION_SERVER"
DEFAULT = """\
# Written by the distribution
if [ "x$CVMFS_BASE_ENV" = x ]; then
readonly CVMFS_BASE_ENV=1
CVMFS_TIMEOUT=5
CVMFS_CLAIM_OWNERSHIP=no
CVMFS_DEFAULT_DOMAIN=example.org
CVMFS_PROXY_SHARD=yes
fi
"""


class Configured:
    """A site whose client is configured by files."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.etc = site.directory / "etc"
        for name in ("default.d", "domain.d", "config.d", "keys"):
            (self.etc / name).mkdir(parents=True)
        (self.etc / "default.conf").write_text(DEFAULT)
        (site.directory / "key.pub").rename(self.etc / "keys" / "example.org.pub")
        self.write(
            "default.local", f'CVMFS_HTTP_PROXY="DIRECT"\nCVMFS_CACHE_BASE={site.directory}\nCVMFS_QUOTA_LIMIT=100\n'
        )
        self.write("domain.d/example.org.conf", f"CVMFS_SERVER_URL=http://127.0.0.1:{site.port}/cvmfs/@fqrn@\n")

    @property
    def cache(self) -> Path:
        return self.site.directory / "ducc" / "shared"

    @property
    def log(self) -> str:
        return (self.cache / f"{signing.FQRN}.log").read_text()

    def write(self, name: str, text: str) -> None:
        with (self.etc / name).open("a") as file:
            file.write(text)

    def mount(self, name: str = signing.FQRN, **environment: str) -> None:
        self.site.ducc("mount", name, self.site.root, "--etc", self.etc, **environment)

    def client(self, *words: object, status: int | None = 0) -> str:
        return self.site.ducc("client", *words, status=status).stdout


@pytest.fixture
def configured(site: Site) -> Configured:
    return Configured(site)


def some_files(site: Site) -> dict:
    publisher = site.publisher
    return {
        b"/file": publisher.file(b"file", b"content"),
        b"/d/other": publisher.file(b"other", b"other"),
        b"/d/big": publisher.chunked(b"big", b"1" * 1000, b"2" * 1000),
    }


# --- configuration -------------------------------------------------------------------------


def test_a_repository_is_mounted_as_the_files_of_the_stock_client_say(configured: Configured) -> None:
    configured.site.publish(some_files(configured.site))
    configured.mount("repo")  # the domain is configured, too
    assert (configured.site.root / "file").read_text() == "content"
    assert list(configured.cache.glob("??/*"))
    (line,) = [line for line in configured.log.splitlines() if "without an effect" in line]
    assert line.endswith("names=CVMFS_PROXY_SHARD")


def test_links_name_variables_of_the_configuration_and_of_the_environment(configured: Configured) -> None:
    site = configured.site
    links = {b"/arch": symlink(b"arch", b"$(CVMFS_ARCH:-other)"), b"/where": symlink(b"where", b"$(MY_SITE)/x")}
    machine = platform.machine()
    for name in (machine, "other"):
        links[b"/" + name.encode()] = site.publisher.file(name.encode(), name.encode())
    site.publish(links)
    configured.mount(MY_SITE="here")
    assert os.readlink(site.root / "arch") == machine
    assert (site.root / "arch").read_text() == machine
    assert (os.readlink(site.root / "where"), os.lstat(site.root / "where").st_size) == ("here/x", 6)
    site.ducc("umount", site.root)
    configured.write("default.local", "CVMFS_ARCH=other\n")
    configured.mount()
    assert (site.root / "arch").read_text() == "other"


def test_owners_are_claimed_or_mapped(configured: Configured) -> None:
    site = configured.site
    site.publish({b"/a": site.publisher.file(b"a", uid=5, gid=6), b"/b": site.publisher.file(b"b", uid=7, gid=8)})
    configured.write("config.d/repo.example.org.local", "CVMFS_CLAIM_OWNERSHIP=yes\nCVMFS_GID_MAP=/dev/fd/none\n")
    result = site.ducc("mount", signing.FQRN, site.root, "--etc", configured.etc, status=2)
    assert "CVMFS_GID_MAP" in result.stderr
    (site.directory / "gids").write_text("6 60\n* 90\n")
    configured.write("config.d/repo.example.org.local", f"CVMFS_GID_MAP={site.directory}/gids\n")
    configured.mount()
    assert [(os.stat(site.root / name).st_uid, os.stat(site.root / name).st_gid) for name in "ab"] == [(0, 60), (0, 90)]


def test_what_can_not_be_used_is_named_in_one_line(configured: Configured) -> None:
    site = configured.site
    for text, reason in (
        ("CVMFS_HTTP_PROXY=auto\n", "CVMFS_HTTP_PROXY"),
        ("CVMFS_KEYS_DIR=/nowhere\n", "CVMFS_KEYS_DIR"),
        ("CVMFS_QUOTA_LIMIT='\n", "a quotation is not closed"),
        ("rm -rf /nowhere\n", "`rm` is not understood"),
    ):
        (configured.etc / "config.d" / "repo.example.org.local").write_text(text)
        result = site.ducc("mount", signing.FQRN, site.root, "--etc", configured.etc, status=2)
        assert re.fullmatch(r"ducc: .+\n", result.stderr)
        assert reason in result.stderr
        assert not os.path.ismount(site.root)


def test_mount_and_fstab_know_the_type(configured: Configured, tmp_path: Path) -> None:
    """In a mount namespace of its own, where the helper and the table are laid over the machine's."""
    need_root()
    need_program("unshare")
    site = configured.site
    site.publish(some_files(site))
    helper = tmp_path / "mount.ducc"
    code = "import sys; from ducc.cli.mount_helper import main; sys.exit(main())"
    helper.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    helper.chmod(0o755)
    fstab = f"{signing.FQRN} {site.root} ducc _netdev,nosuid,etc={configured.etc} 0 0\n"
    fstab += f"none {tmp_path}/all ducc all,idle=600,etc={configured.etc},cache={tmp_path}/logs 0 0\n"
    (tmp_path / "fstab").write_text(fstab)
    script = f"""set -e
        mount --bind {tmp_path}/fstab /etc/fstab
        mkdir {tmp_path}/over
        mount -t tmpfs none {tmp_path}/over
        mkdir {tmp_path}/over/upper {tmp_path}/over/work
        cp {helper} {tmp_path}/over/upper
        mount -t overlay -o lowerdir=/sbin,upperdir={tmp_path}/over/upper,workdir={tmp_path}/over/work none /sbin
        mount {site.root}
        cat {site.root}/file
        umount {site.root}
        mount -t ducc -o etc={configured.etc} repo {site.root}
        cat {site.root}/d/other
        umount {site.root}
        mkdir {tmp_path}/all
        mount {tmp_path}/all
        cat {tmp_path}/all/{signing.FQRN}/file
        {SCRIPT} umount {tmp_path}/all
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=site.ducc.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "contentothercontent"), done.stderr


# --- revisions -----------------------------------------------------------------------------


def test_a_mount_stays_at_the_revision_that_is_named(configured: Configured) -> None:
    site, publisher = configured.site, configured.site.publisher
    manifests = [
        publisher.publish({b"/n": publisher.file(b"n", b"%d" % number)}, timestamp=1_700_000_000 + number)
        for number in range(3)
    ]
    tags = [Tag(f"v{m.revision}", m.root_hash, m.revision, m.timestamp, size=m.root_size) for m in manifests]
    history = History(signing.FQRN, [*tags, Tag("tree-0", manifests[2].root_hash, 0, manifests[0].timestamp)])
    publisher.publish(
        {b"/n": publisher.file(b"n", b"3")},
        history=publisher.put(history.to_bytes(), Suffix.HISTORY), timestamp=1_700_000_003,
    )  # fmt: skip
    for parameter, content in (
        (f"CVMFS_ROOT_HASH={manifests[1].root_hash.hex()}", "1"),
        ("CVMFS_REPOSITORY_TAG=v1", "0"),
        ("CVMFS_REPOSITORY_DATE=2023-11-14T22:13:22Z", "2"),  # 1_700_000_002
        ("CVMFS_REPOSITORY_DATE=2023-11-14T22:13:20Z", "0"),
        ("CVMFS_AUTO_UPDATE=no", "3"),
    ):
        (configured.etc / "config.d" / "repo.example.org.local").write_text(f"{parameter}\n")
        configured.mount()
        assert (site.root / "n").read_text() == content, parameter
        site.ducc("umount", site.root)
    (configured.etc / "config.d" / "repo.example.org.local").write_text("CVMFS_REPOSITORY_TAG=nothing\n")
    result = site.ducc("mount", signing.FQRN, site.root, "--etc", configured.etc, status=57)
    assert "no revision nothing" in result.stderr


def test_without_any_server_the_last_state_is_shown_and_followed_when_one_is_back(configured: Configured) -> None:
    site = configured.site
    site.publish(some_files(site))
    configured.mount()
    assert (site.root / "file").read_text() == "content"
    site.ducc("umount", site.root)
    site.stop_serving()
    configured.mount()
    assert sorted(os.listdir(site.root)) == ["d", "file"]
    assert (site.root / "file").read_text() == "content"
    status = json.loads(configured.client("status", "--json", site.root))["mounts"][0]
    assert "connection refused" in status["problem"]
    site.publish({b"/new": site.publisher.file(b"new", b"new")})
    site.serve()
    configured.client("reload", site.root)
    assert os.listdir(site.root) == ["new"]


def test_a_server_that_offers_what_is_older_is_not_believed(configured: Configured) -> None:
    site = configured.site
    site.publish({b"/old": site.publisher.file(b"old")})
    old = (site.repository / ".cvmfspublished").read_bytes()
    site.publish({b"/new": site.publisher.file(b"new")})
    configured.mount()
    assert os.listdir(site.root) == ["new"]
    site.ducc("umount", site.root)
    (site.repository / ".cvmfspublished").write_bytes(old)
    configured.mount()
    assert os.listdir(site.root) == ["new"]
    assert "old revision" in configured.log


def test_what_is_on_the_blacklist_is_not_mounted(configured: Configured) -> None:
    site = configured.site
    site.publish(some_files(site))
    configured.write("blacklist", f"# trouble\n<{signing.FQRN} 5\n")
    result = site.ducc("mount", signing.FQRN, site.root, "--etc", configured.etc, status=60)
    assert "blacklist" in result.stderr


# --- orders --------------------------------------------------------------------------------


def test_status_says_what_is_shown_and_what_it_cost(configured: Configured) -> None:
    site = configured.site
    site.publish(some_files(site))
    configured.mount()
    (site.root / "file").read_text()
    (status,) = json.loads(configured.client("status", "--json", site.root))["mounts"]
    assert (status["fqrn"], status["revision"], status["problem"]) == (signing.FQRN, 1, "")
    assert status["root_hash"] == site.publisher.manifest.root_hash.hex()
    assert status["network"]["requests"] >= 5
    assert status["cache"]["limit_bytes"] == 100 << 20
    assert f"{signing.FQRN} at {site.root}: revision 1" in configured.client("status", site.root)
    figures = configured.client("status", "--prometheus", site.root)
    label = f'{{fqrn="{signing.FQRN}",mountpoint="{site.root}"}}'
    assert f"ducc_client_revision{label} 1\n" in figures
    assert f"ducc_client_stale{label} 0\n" in figures
    assert re.search(r"^# TYPE ducc_client_requests_total counter$", figures, re.MULTILINE)
    assert "no repository is mounted" in site.ducc("client", "status", "/nowhere", status=2).stderr


def test_probe_asks_every_server(configured: Configured) -> None:
    site = configured.site
    configured.write("config.d/repo.example.org.conf", 'CVMFS_SERVER_URL="$CVMFS_SERVER_URL;http://127.0.0.1:1/x"\n')
    site.publish(some_files(site))
    configured.mount()
    (probed,) = json.loads(configured.client("probe", "--json", site.root))["mounts"]
    assert [server["ok"] for server in probed["servers"]] == [True, False]
    assert "connection refused" in configured.client("probe", site.root)
    site.stop_serving()
    assert "FAILED" in configured.client("probe", site.root, status=58)


def test_a_mount_whose_process_is_gone_is_said_to_be_so(configured: Configured) -> None:
    site = configured.site
    site.publish(some_files(site))
    configured.mount()
    for process in site.processes():  # first the one that would start another
        os.kill(process, signal.SIGKILL)
    assert "does not answer" in configured.client("status", site.root, status=58)
    site.ducc("umount", site.root)


def test_reload_shows_the_newest_revision_before_it_returns(configured: Configured) -> None:
    site = configured.site
    site.publish({b"/1": site.publisher.file(b"1")})
    configured.mount()
    site.publish({b"/2": site.publisher.file(b"2")})
    assert "revision 2" in configured.client("reload", site.root)
    assert os.listdir(site.root) == ["2"]
    site.stop_serving()
    assert "connection refused" in site.ducc("client", "reload", site.root, status=59).stderr


def test_reload_reads_the_configuration_again(configured: Configured) -> None:
    """Another process takes over, with everything that is open."""
    site = configured.site
    site.publish(some_files(site))
    configured.mount()
    assert status(configured)["cache"]["limit_bytes"] == 100 << 20
    before = status(configured)["pid"]
    with (site.root / "file").open() as opened:
        configured.write("default.local", "CVMFS_QUOTA_LIMIT=200\nCVMFS_MAGIC_XATTRS_VISIBILITY=always\n")
        assert "revision 1" in configured.client("reload", site.root)
        assert opened.read() == "content"
    assert status(configured)["cache"]["limit_bytes"] == 200 << 20
    assert status(configured)["pid"] != before
    assert "user.fqrn" in os.listxattr(site.root / "d")
    before = status(configured)["pid"]
    configured.write("blacklist", "# nothing yet\n")
    configured.client("reload", site.root)
    assert status(configured)["pid"] == before  # for the same configuration nobody has to wait


def test_what_is_pushed_is_shown_at_once(configured: Configured) -> None:
    """Nobody has to wait for the end of the four minutes that the revision is good for."""
    site = configured.site
    site.publish({b"/1": site.publisher.file(b"1")})
    configured.write("default.local", f"CVMFS_NOTIFICATION_SERVER=http://127.0.0.1:{site.port}/api/v1\n")
    configured.mount()
    for number in (2, 3):
        site.publish({b"/%d" % number: site.publisher.file(b"%d" % number)})
        wait_for(lambda number=number: os.listdir(site.root) == [str(number)])
    site.stop_serving()
    site.publish({b"/4": site.publisher.file(b"4")})
    site.serve()
    wait_for(lambda: os.listdir(site.root) == ["4"])


def test_our_server_pushes_to_the_stock_client(configured: Configured) -> None:
    stock.need_stock()
    site = configured.site
    site.publish({b"/1": site.publisher.file(b"1")})
    url = f"http://127.0.0.1:{site.port}"
    with stock.mounted(stock_made(site), f"{url}/cvmfs/{signing.FQRN}", more=f"{PUSHED}={url}/api/v1\n") as theirs:
        assert os.listdir(theirs) == ["1"]
        site.publish({b"/2": site.publisher.file(b"2")})
        wait_for(lambda: os.listdir(theirs) == ["2"])


def stock_made(site: Site) -> Published:
    """The site's repository as the stock client is told of it."""
    made = Published(site.directory, site.ducc, signing.FQRN)
    made.keys.mkdir(exist_ok=True)
    site.publisher.public_key(made.public_key)
    return made


def test_a_configuration_that_can_not_be_used_changes_nothing(configured: Configured) -> None:
    site = configured.site
    site.publish(some_files(site))
    configured.mount()
    before = status(configured)
    for text, reason in (
        ("CVMFS_QUOTA_LIMIT=many\n", "CVMFS_QUOTA_LIMIT='many'"),
        ("CVMFS_PUBLIC_KEY=/nowhere\n", "/nowhere"),
        ("rm -rf /nowhere\n", "`rm` is not understood"),
    ):
        (configured.etc / "config.d" / "repo.example.org.local").write_text(text)
        assert reason in site.ducc("client", "reload", site.root, status=59).stderr
        assert status(configured)["pid"] == before["pid"]
    (configured.etc / "keys" / "example.org.pub").write_text("no key\n")
    (configured.etc / "config.d" / "repo.example.org.local").unlink()
    assert "nothing was changed" in site.ducc("client", "reload", site.root, status=59).stderr
    assert (site.root / "file").read_text() == "content"


def status(configured: Configured) -> dict:
    (found,) = json.loads(configured.client("status", "--json", configured.site.root))["mounts"]
    return found


def test_what_is_pinned_is_here_and_what_is_evicted_is_not(configured: Configured) -> None:
    site = configured.site
    site.publish(some_files(site))
    configured.mount()
    assert "objects 3" in configured.client("pin", site.root / "d")
    kept = len(list(configured.cache.glob("??/*")))
    assert "objects 3" in configured.client("evict", site.root / "d")
    assert len(list(configured.cache.glob("??/*"))) == kept - 3
    assert (site.root / "d" / "other").read_text() == "other"
    assert "nothing of that name" in site.ducc("client", "pin", site.root / "nothing", status=59).stderr


def test_the_objects_of_a_start_are_named_in_their_order(configured: Configured) -> None:
    site = configured.site
    files = some_files(site)
    site.publish(files)
    configured.mount()
    configured.client("record", "start", site.root)
    (site.root / "d" / "other").read_text()
    (site.root / "file").read_text()
    (site.root / "d" / "other").read_text()
    lines = configured.client("record", "stop", site.root).splitlines()
    assert [line.split()[1] for line in lines] == ["5", "7"]
    assert lines[0].split()[0] == files[b"/d/other"].content.hex()
    assert configured.client("record", "stop", site.root) == ""


# --- side by side ----------------------------------------------------------------------------

OF_A_PROCESS = {
    "expires",
    "hitrate",
    "inode_max",
    "logbuffer",
    "maxfd",
    "nclg",
    "ndiropen",
    "ndownload",
    "nopen",
    "pid",
    "problem",
    "pubkeys",
    "repo_metainfo",
    "rx",
    "speed",
    "usedfd",
    "version",
}


def test_links_and_magic_attributes_are_those_of_the_stock_client(configured: Configured) -> None:
    stock.need_stock()
    site, publisher = configured.site, configured.site.publisher
    links = [
        b"$(CVMFS_ARCH:-x)/y",
        b"a$(NOT_SET)b",
        b"$(NOT_SET:-c d)$(X",
        b"$()",
        b"$(A:B)",
        b"$(:-d)",
        b"$(A:-(b)c)",
        b"$(A(B)c)",
        b"$(NOT_SET:-)$(HOME)",
        b"${HOME}",
    ]
    site.publish(
        {
            **some_files(site),
            b"/d/e/deep": publisher.file(b"deep", b"deep"),
            **{b"/l/%d" % number: symlink(b"%d" % number, target) for number, target in enumerate(links)},
        },
        b"/d",
        b"/d/e",
    )  # fmt: skip
    configured.mount(HOME=os.environ["HOME"])
    url = f"http://127.0.0.1:{site.port}/cvmfs/{signing.FQRN}"
    with stock.mounted(stock_made(site), url) as theirs:
        shown = [[os.readlink(root / "l" / str(n)) for n in range(len(links))] for root in (site.root, theirs)]
        assert shown[0] == shown[1]
        for root in (site.root, theirs):
            assert (root / "file").read_text() == "content"  # now it is in both caches
        names = {name for name in os.listxattr(site.root) if name.removeprefix("user.") not in OF_A_PROCESS}
        names |= {
            f"user.{name}"
            for name in ("hash", "lhash", "chunks", "chunk_list", "chunk_list~?", "chunk_list~0", "compression")
        }
        for path in ("", "file", "d", "d/big", "d/e", "d/e/deep"):
            for name in sorted(names - {"user.revision"}):  # the fixture's catalogs do not say it
                assert attribute(site.root / path, name) == attribute(theirs / path, name), (path, name)


def attribute(path: Path, name: str) -> bytes | int | None:
    """The value, or the number of the error."""
    try:
        return os.getxattr(path, name)
    except OSError as error:
        return error.errno
