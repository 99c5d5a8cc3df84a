"""Programs that ask much of a file system, on the mount and on an overlay above it: git, a compiler, apptainer."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from ducc.catalog.tree import Directory, Node
from tests import apptainer
from tests.builders import push
from tests.end_to_end.overlay import overlay
from tests.end_to_end.published import repository
from tests.end_to_end.test_mount import Site, site
from tests.images.small import small
from tests.memory import directory_entry
from tests.needs import need_fuse, need_program, need_root
from tests.unit.client.publisher import Publisher

__all__ = ["site"]  # a fixture

HEADER = '#define GREETING "hello from the mount"\n'
SOURCE = '#include <stdio.h>\n#include "greeting.h"\nint main(void) { puts(GREETING); return 0; }\n'


def run(*words: object, directory: Path) -> str:
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}
    done = subprocess.run(
        list(map(str, words)), cwd=directory, env=environment, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def nodes_of(directory: Path, publisher: Publisher) -> dict[bytes, Node]:
    """A local directory as what is to be published: files and directories."""
    nodes: dict[bytes, Node] = {}
    for path in sorted(directory.rglob("*")):
        name, status = os.fsencode(path.name), path.stat()
        fields = {"mode": status.st_mode, "mtime": status.st_mtime_ns // 10**9}
        if stat.S_ISDIR(status.st_mode):
            node: Node = Directory(directory_entry(name, **fields))
        else:
            node = publisher.file(name, path.read_bytes(), **fields, mtime_ns=status.st_mtime_ns % 10**9)
        nodes[b"/" + os.fsencode(path.relative_to(directory))] = node
    return nodes


@pytest.fixture
def project(site: Site, tmp_path: Path) -> Site:
    """A program's sources under git, and the program, mounted."""
    need_program("git")
    need_program("gcc")
    made = tmp_path / "project"
    for name, text in (("include/greeting.h", HEADER), ("source/main.c", SOURCE)):
        (made / name).parent.mkdir(parents=True)
        (made / name).write_text(text)
    run("git", "init", "--quiet", ".", directory=made)
    run("git", "add", ".", directory=made)
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    run("git", *author, "commit", "--quiet", "--message", "all", directory=made)
    run("gcc", "-I", "include", "-o", "program", "source/main.c", directory=made)
    site.publish(nodes_of(made, site.publisher), b"/.git")
    site.mount()
    return site


def test_git_and_a_compiler_work_from_the_mount(project: Site, tmp_path: Path) -> None:
    assert run("git", "status", "--porcelain", directory=project.root) == "?? program\n"
    assert run("git", "log", "--format=%s", directory=project.root) == "all\n"
    run("git", "fsck", "--strict", directory=project.root)
    run("gcc", "-I", "include", "-o", tmp_path / "built", "source/main.c", directory=project.root)
    for program in (tmp_path / "built", project.root / "program"):
        assert run(program, directory=project.root) == "hello from the mount\n"


def test_git_and_a_compiler_work_on_an_overlay_above_it(project: Site, tmp_path: Path) -> None:
    with overlay([project.root], tmp_path / "overlay", writable=True) as merged:
        assert run("git", "status", "--porcelain", directory=merged) == "?? program\n"
        (merged / "include" / "greeting.h").write_text(HEADER.replace("the mount", "above"))
        assert run("git", "status", "--porcelain", directory=merged) == " M include/greeting.h\n?? program\n"
        run("gcc", "-I", "include", "-o", "program", "source/main.c", directory=merged)
        assert run(merged / "program", directory=merged) == "hello from above\n"
        run("git", "checkout", "--quiet", ".", directory=merged)
        assert run("git", "status", "--porcelain", directory=merged) == "?? program\n"
    assert run(project.root / "program", directory=project.root) == "hello from the mount\n"


@pytest.mark.engine
def test_apptainer_runs_an_image_from_the_mount_and_from_an_overlay_on_it(registry, tmp_path: Path) -> None:
    need_root()
    need_fuse()
    image = small()
    push(registry.host, "test/programs", "1", image)
    with repository(tmp_path / "made") as made:
        made.convert(f"http://{registry.host}/test/programs:1")
        with made.served() as url, made.mounted(url) as root:
            rootfs = root / registry.host / "test" / "programs:1"
            assert apptainer.exec(rootfs, ["/bin/busybox", "cat", "/etc/motd"]).stdout == "welcome back\n"
            with overlay([rootfs.resolve()], tmp_path / "overlay", writable=True) as merged:
                (merged / "etc" / "motd").write_text("changed\n")
                done = apptainer.exec(merged, ["/bin/busybox", "cat", "/etc/motd"], user="root")
                assert (done.returncode, done.stdout) == (0, "changed\n"), done.stderr
