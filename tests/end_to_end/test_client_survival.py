"""A mount outlives the process behind it: killed, stopped or stuck, alone or below an overlay, in the middle of all."""

import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import ducc
from ducc.client.background import BEAT_SECONDS
from ducc.client.mountpoint import state_path
from tests import signing
from tests.console import Console
from tests.end_to_end.overlay import overlay
from tests.end_to_end.test_mount import Site, errno_of, site, wait_for
from tests.leftovers import SESSION_VARIABLE

__all__ = ["site"]

DEAD = (errno.ENOTCONN, errno.ECONNABORTED)  # nobody answers any more
TEXT = b"a line of text\n" * 20_000
READ_BY = [" ".join(map(str, range(first, 50, 4))) for first in range(4)]


def worker(site: Site) -> int:
    """The process that answers, as its lock tells."""
    lock = state_path(site.root).with_suffix(".lock")
    return int(str(wait_for(lambda: lock.read_text().strip())))


def kill_worker(site: Site, number: int = signal.SIGKILL) -> int:
    killed = worker(site)
    os.kill(killed, number)
    return killed


def wait_for_another(site: Site, killed: int) -> None:
    wait_for(lambda: worker(site) != killed)


def drop_caches() -> None:
    """What the kernel knows of names and attributes; what is in use stays."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def published(site: Site) -> None:
    publish_some(site)
    site.mount()


def publish_some(site: Site) -> None:
    publisher = site.publisher
    image = {b"/bin/%d" % number: publisher.file(b"%d" % number, b"%d\n" % number + TEXT) for number in range(50)}
    site.publish({b"/images/one": publisher.bind(image, b"one"), b"/motd": publisher.file(b"motd", TEXT)}, b"/images")


def test_a_killed_server_is_back_and_nobody_notices(site: Site) -> None:
    published(site)
    directory = site.root / "images" / "one" / "bin"
    inodes = {name: os.stat(directory / name).st_ino for name in os.listdir(directory)}
    with (directory / "0").open("rb") as opened:
        assert opened.read(10) == (b"0\n" + TEXT)[:10]
        killed = kill_worker(site)
        drop_caches()
        assert (directory / "1").read_bytes() == b"1\n" + TEXT
        assert opened.read() == (b"0\n" + TEXT)[10:]
    wait_for_another(site, killed)
    drop_caches()
    assert {name: os.stat(directory / name).st_ino for name in os.listdir(directory)} == inodes
    site.ducc("umount", site.root)


def test_readers_see_no_error_while_the_server_is_killed_again_and_again(site: Site) -> None:
    published(site)
    directory = site.root / "images" / "one" / "bin"
    done, wrong = threading.Event(), []

    def read_again_and_again(first: int) -> None:
        number = first
        while not done.is_set():
            path = directory / str(number % 50)
            try:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    if file.read() != b"%d\n" % (number % 50) + TEXT:
                        wrong.append(f"{path}: other content")
                os.listdir(directory)
            except OSError as error:
                wrong.append(str(error))
            number += 1

    readers = [threading.Thread(target=read_again_and_again, args=(first,)) for first in (0, 13, 26)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        wait_for_another(site, kill_worker(site))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_an_overlay_and_what_runs_from_it_go_on(site: Site, tmp_path: Path) -> None:
    published(site)
    with overlay([site.root / "images" / "one"], tmp_path / "overlay", writable=True) as merged:
        with (merged / "bin" / "3").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            wait_for_another(site, kill_worker(site))
            drop_caches()
            assert mapped[:] == b"3\n" + TEXT
        assert (merged / "bin" / "4").read_bytes() == b"4\n" + TEXT
        (merged / "bin" / "5").write_bytes(b"changed")
        assert (merged / "bin" / "5").read_bytes() == b"changed"


def test_another_version_of_the_program_takes_over_with_all_that_is_open(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "program"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ducc.__file__).parent, program / "ducc", ignore=ignored)
    site.environment["PYTHONPATH"] = str(program)
    published(site)
    image = site.root / "images" / "one"
    with (
        overlay([image], tmp_path / "overlay", writable=True) as merged,
        (merged / "bin" / "3").open("rb") as file,
        subprocess.Popen(["sh", "-c", "read line; cat 7"], cwd=merged / "bin", stdin=PIPE, stdout=PIPE) as running,
    ):
        inode = os.stat(image / "bin" / "4").st_ino
        killed = worker(site)
        init = program / "ducc" / "__init__.py"
        init.write_text(init.read_text().replace(f'"{ducc.__version__}"', '"99"'))
        assert "version 99" in site.ducc("client", "upgrade", site.root).stdout
        assert worker(site) != killed
        drop_caches()
        assert os.stat(image / "bin" / "4").st_ino == inode
        assert file.read() == b"3\n" + TEXT
        assert (merged / "bin" / "5").read_bytes() == b"5\n" + TEXT
        assert running.communicate(b"\n", timeout=60)[0] == b"7\n" + TEXT
    assert os.getxattr(site.root, "user.version") == b"99"


def test_a_version_that_does_not_start_changes_nothing(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copytree(Path(ducc.__file__).parent, program / "ducc", ignore=shutil.ignore_patterns("__pycache__"))
    site.environment["PYTHONPATH"] = str(program)
    published(site)
    before = worker(site)
    (program / "ducc" / "client" / "daemon.py").write_text("import no_such_module\n")
    assert "nothing was changed" in site.ducc("client", "upgrade", site.root, status=59).stderr
    assert worker(site) == before
    assert (site.root / "motd").read_bytes() == TEXT


def test_what_a_revision_changed_stays_open_beyond_the_death_of_the_server(site: Site) -> None:
    publisher = site.publisher
    site.publish({b"/file": publisher.file(b"file", TEXT), b"/same": publisher.file(b"same", b"same")})
    site.mount()
    same = os.stat(site.root / "same").st_ino
    with (site.root / "file").open("rb") as opened:
        site.publish_and_follow({b"/file": publisher.file(b"file", b"new"), b"/same": publisher.file(b"same", b"same")})
        wait_for_another(site, kill_worker(site))
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert opened.read() == TEXT
        assert (site.root / "file").read_bytes() == b"new"
    drop_caches()
    assert os.stat(site.root / "same").st_ino == same


def test_a_server_killed_while_the_network_is_gone_comes_back_with_what_it_had(site: Site) -> None:
    published(site)
    assert (site.root / "motd").read_bytes() == TEXT
    site.stop_serving()
    wait_for_another(site, kill_worker(site))
    drop_caches()
    assert (site.root / "motd").read_bytes() == TEXT
    site.serve()


def test_without_its_state_the_mount_is_made_anew_and_what_was_open_is_lost(site: Site) -> None:
    published(site)
    opened = os.open(site.root / "motd", os.O_RDONLY)
    state_path(site.root).write_bytes(b"damaged")
    wait_for_another(site, kill_worker(site))
    log = site.cache / f"{signing.FQRN}.log"
    wait_for(lambda: log.read_text().count(" mounted: ") == 2)
    wait_for(lambda: errno_of(lambda: os.stat(site.root / "motd")) is None)
    assert (site.root / "motd").read_bytes() == TEXT
    assert errno_of(lambda: os.listxattr(opened)) in DEAD
    with suppress(OSError):  # closing says so, too
        os.close(opened)


def test_whoever_asks_a_stopped_server_waits_for_it(site: Site) -> None:
    published(site)
    stopped = kill_worker(site, signal.SIGSTOP)
    try:
        reader = subprocess.Popen(["/bin/cat", str(site.root / "images" / "one" / "bin" / "7")], stdout=subprocess.PIPE)
        time.sleep(0.3)
        assert reader.poll() is None
        os.kill(stopped, signal.SIGCONT)
        output, _ = reader.communicate(timeout=60)
        assert output == b"7\n" + TEXT
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_a_server_that_stays_stopped_under_load_is_replaced(site: Site) -> None:
    """After a minute, here after some seconds; all who read just wait."""
    program = f"""import sys
from ducc.cli import main
from ducc.client import background
background._LONGEST_SILENCE_SECONDS = {2 * BEAT_SECONDS}
sys.exit(main.main(sys.argv[1:]))"""
    url = f"http://127.0.0.1:{site.port}/cvmfs/{signing.FQRN}"
    words = ["mount", signing.FQRN, site.root, "--url", url, *site.options]
    publish_some(site)
    subprocess.run([sys.executable, "-c", program, *map(str, words)], env=site.ducc.environment, check=True)
    directory = site.root / "images" / "one" / "bin"
    readers = [
        subprocess.Popen(["sh", "-c", f"for n in {READ_BY[first]}; do cat {directory}/$n; done"], stdout=PIPE)
        for first in range(4)
    ]
    stopped = kill_worker(site, signal.SIGSTOP)
    outputs = [reader.communicate(timeout=120)[0] for reader in readers]
    for first, output in enumerate(outputs):
        assert output == b"".join(b"%d\n" % number + TEXT for number in range(first, 50, 4))
    assert worker(site) != stopped
    assert not Path(f"/proc/{stopped}").exists()


def test_whoever_waits_for_the_network_can_be_killed(site: Site) -> None:
    published(site)
    assert site.server is not None
    path = site.root / "images" / "one" / "bin"
    os.listdir(path)
    os.kill(site.server.pid, signal.SIGSTOP)
    try:
        reader = subprocess.Popen(["/bin/cat", str(path / "9")], stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        reader.kill()
        reader.wait(timeout=60)
    finally:
        os.kill(site.server.pid, signal.SIGCONT)


def test_a_mount_left_by_the_death_of_everybody_is_taken_away_by_the_next_one(site: Site) -> None:
    published(site)
    parent = int(Path(f"/proc/{worker(site)}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(parent, signal.SIGKILL)
    kill_worker(site)
    wait_for(lambda: errno_of(lambda: os.listdir(site.root)) in DEAD)
    leave_unfinished(site)
    site.mount()
    assert (site.root / "motd").read_bytes() == TEXT
    assert "revision 1" in site.ducc("client", "status", site.root).stdout  # the old socket is in nobody's way
    assert not list(site.cache.glob("cvmfschecksum.*.new"))


def leave_unfinished(site: Site) -> None:
    """What a process leaves that is killed while it writes."""
    (site.cache / f"cvmfschecksum.{signing.FQRN}.{2**22 + 1}.new").write_text("half of")
    state_path(site.root).with_suffix(".new").write_bytes(b"half of")


def test_it_works_with_the_mount_as_working_directory_of_whoever_mounts(site: Site, ducc: Console) -> None:
    """The server leaves the directory in which it was started, and touches nothing of its own below its mount."""
    site.publish({b"/motd": site.publisher.file(b"motd", TEXT)})
    url = f"http://127.0.0.1:{site.port}/cvmfs/{signing.FQRN}"
    command = [sys.executable, "-m", "ducc.cli.main", "mount", signing.FQRN, ".", "--url"]
    environment = {**ducc.environment, SESSION_VARIABLE: os.environ.get(SESSION_VARIABLE, "")}
    subprocess.run([*command, url, *map(str, site.options)], cwd=site.root, env=environment, check=True)
    assert (site.root / "motd").read_bytes() == TEXT
    assert os.readlink(f"/proc/{worker(site)}/cwd") == "/"


def test_unmounting_does_not_wait_for_what_is_used_in_another_mount_namespace(site: Site) -> None:
    """As every container has one: the repository stays there, and the process behind it, until the container ends."""
    published(site)
    processes = site.processes()
    script = "cat; cat mnt/motd"
    elsewhere = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], cwd=site.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_for(lambda: Path(f"/proc/{elsewhere.pid}/comm").read_text() == "sh\n")  # its mounts are its own by then
    assert "still use it" in site.ducc("umount", site.root).stderr
    assert not os.path.ismount(site.root)
    output, _ = elsewhere.communicate(timeout=60)
    assert output == TEXT
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))
    site.mount()


def test_unmounting_leaves_no_process_and_no_file(site: Site) -> None:
    published(site)
    assert (site.root / "motd").read_bytes() == TEXT
    processes = site.processes()
    site.ducc("umount", site.root)
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))
    assert not state_path(site.root).exists()
    assert not list(site.cache.glob("??/*.*"))
