"""Debian's Docker 20.10 with our graph driver: published images start, others are as with overlay2, kills cost nothing.

The registry's log says what was fetched; a second daemon, with overlay2, says what a container must see.
"""

import json
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import Image, Layer, directory, file, hard_link, opaque, push, sha256, symlink, whiteout
from tests.dockerd import Dockerd, running_dockerd
from tests.graph_driver import running_graph_driver
from tests.graph_site import Site, container_tree, running_site
from tests.images.small import system
from tests.registry import Registry
from tests.trees import differences

pytestmark = pytest.mark.engine

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective
PATIENCE_SECONDS = 120
SETTINGS = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "Labels": {"kept": "yes"}, "WorkingDir": "/home"}


def base() -> Layer:
    return Layer.of(
        *system(),
        file("bin/as-root", b"#!/bin/sh\n", mode=0o4755),
        file("bin/binder", b"#!/bin/sh\n", mode=0o755, xattrs={"security.capability": CAPABILITY}),
        file("usr/share/old/three", b"3"),
        file("home/owned", b"", uid=1000, gid=100, xattrs={"user.note": b"\xff\0"}),
        symlink("lib", "usr/lib"),
    )


def changes() -> Layer:
    return Layer.of(
        directory("etc"),
        file("etc/motd", b"changed\n"),
        whiteout("etc/group"),
        directory("usr"),
        directory("usr/share"),
        directory("usr/share/old", mode=0o711),
        opaque("usr/share/old"),
        file("usr/share/old/new", b"new"),
        hard_link("etc/motd-again", "etc/motd"),
    )


PUBLISHED = Image([base(), changes()], SETTINGS)
DEEP = Image(
    [base(), *(Layer.of(directory("deep"), file(f"deep/{n}", b"%d" % n), file("top", b"%d" % n)) for n in range(64))],
    SETTINGS,
)
ORDINARY = Image([base(), Layer.of(directory("opt"), file("opt/own", b"not published"))], SETTINGS)


@pytest.fixture(scope="module")
def site(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for name, image in (("published", PUBLISHED), ("deep", DEEP), ("ordinary", ORDINARY)):
        push(registry.host, f"site/{name}", "latest", image)
    with running_site(tmp_path_factory.mktemp("site"), registry, "site/published", "site/deep") as site:
        yield site


@pytest.fixture(scope="module")
def overlay2(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    with running_dockerd(tmp_path_factory.mktemp("o") / "d", "-s", "overlay2", registry=registry.host) as docker:
        yield docker


# --- what is published is not fetched --------------------------------------------------------


def test_a_published_image_runs_and_not_one_of_its_layers_is_fetched(site: Site) -> None:
    with site.fetching() as fetched:
        image = site.pull("thin/site/published")
        script = "cat /etc/motd; pwd; echo mine >own && cat own; ls /usr/share/old; test ! -e /etc/group"
        assert site.docker.run(image, "/bin/sh", "-c", script) == "changed\n/home\nmine\nnew\n"
    assert len(fetched) == 2, "more than a config and a thin layer"
    assert not {*fetched} & {sha256(layer.blob) for layer in PUBLISHED.layers}
    assert site.mounted() == []


def test_a_thin_image_as_older_tools_make_it_runs(site: Site) -> None:
    layers = [
        {
            "digest": (digits := sha256(layer.blob)[7:]),
            "url": f"cvmfs://{site.made.fqrn}/.layers/{digits[:2]}/{digits}/layerfs",
        }
        for layer in PUBLISHED.layers
    ]
    thin = {"version": "1.0", "min_version": "1.0", "origin": "site/published", "layers": layers, "comment": "by hand"}
    image = Image([Layer.of(file("thin.json", json.dumps(thin).encode()))], {"Env": ["CVMFS_IMAGE=true", "PATH=/bin"]})
    push(site.registry.host, "old/thin", "latest", image)
    assert site.docker.run(site.pull("old/thin"), "/bin/cat", "/etc/motd") == "changed\n"


def test_work_on_a_published_image_is_built_committed_pushed_and_pulled_again(site: Site) -> None:
    image = site.pull("thin/site/published")
    container = site.start(image)
    site.exec(container, "echo more >>/etc/motd; rm /usr/share/old/new; mkdir /home/new")
    site.docker.docker("commit", container, site.reference("work/committed"))
    said = site.docker.docker("diff", container).stdout.splitlines()
    assert {"C /etc", "C /etc/motd", "D /usr/share/old/new", "A /home/new"} <= {*said}
    assert "SIZE" not in said
    site.docker.docker("rm", "--force", container)
    recipe = f"FROM {site.reference('work/committed')}\nRUN echo built >/built; rm /home/owned\nCOPY . /copied\n"
    context = site.made.directory / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(recipe)
    for name, kit, options in (("classic", "0", ()), ("squashed", "0", ("--squash",)), ("kit", "1", ())):
        target = site.reference(f"work/{name}")
        site.docker.docker("build", "--network", "none", "--tag", target, *options, context, DOCKER_BUILDKIT=kit)
        assert int(site.docker.docker("inspect", "--format", "{{.Size}}", target).stdout) < 2000, "a base was unpacked"
        site.docker.docker("push", "--quiet", target)
        site.docker.docker("rmi", "--force", target)
        site.docker.docker("pull", "--quiet", target)
        script = "cat /etc/motd /built; ls /usr/share/old /copied; test ! -e /home/owned && test -d /home/new"
        assert site.docker.run(target, "/bin/sh", "-c", script) == (
            "changed\nmore\nbuilt\n/copied:\nDockerfile\n\n/usr/share/old:\n"
        )
    assert site.mounted() == []


def test_a_thin_image_is_saved_and_loaded_as_it_came(site: Site, tmp_path: Path) -> None:
    image = site.pull("thin/site/published")
    site.docker.docker("save", "--output", tmp_path / "saved", image)
    site.docker.docker("rmi", image)
    site.docker.docker("load", "--input", tmp_path / "saved")
    with site.fetching() as fetched:
        assert site.docker.run(image, "/bin/cat", "/etc/motd") == "changed\n"
    assert fetched == []


# --- the container's tree --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["site/published", "site/deep"])
def test_a_container_sees_what_it_would_see_with_overlay2(site: Site, overlay2: Dockerd, name: str) -> None:
    overlay2.docker("pull", "--quiet", site.reference(name))
    wanted = container_tree(overlay2, site.reference(name))
    for reference in (site.pull(f"thin/{name}"), site.pull(name)):
        assert differences(container_tree(site.docker, reference), wanted) == []


# --- ordinary images -------------------------------------------------------------------------


def test_an_ordinary_image_lives_as_with_overlay2(site: Site, tmp_path: Path) -> None:
    image = site.pull("site/ordinary")
    container = site.start(image)
    site.exec(container, "echo one >/one; rm -r /opt")
    assert site.docker.docker("diff", container).stdout.splitlines() == ["A /one", "D /opt"]
    (tmp_path / "two").write_text("two")
    site.docker.docker("cp", tmp_path / "two", f"{container}:/two")
    assert site.exec(container, "cat /one /two") == "one\ntwo"
    site.docker.docker("cp", f"{container}:/one", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "one\n"
    (listed,) = site.docker.docker("ps", "--size", "--filter", f"id={container}", "--format", "{{.Size}}").stdout.split(
        "\n"
    )[:1]
    assert listed.startswith("7B (virtual")
    assert len(site.mounted()) == 1, "docker cp left a mount, or took the container's"
    site.docker.docker("stop", "--time", "0", container)
    assert site.mounted() == []
    site.docker.docker("start", container)
    assert site.exec(container, "cat /one") == "one\n"
    exported = tmp_path / "exported"
    site.docker.docker("export", "--output", exported, container)
    assert "one" in subprocess.run(["tar", "tf", exported], capture_output=True, text=True, check=True).stdout.split()
    site.docker.docker("rm", "--force", container)
    assert site.mounted() == []


def test_layers_of_an_image_that_is_removed_are_gone_from_the_disk(site: Site) -> None:
    image = site.pull("site/ordinary")
    layers = site.docker.directory / "data" / site.driver.name / "layers"
    before = len(os.listdir(layers))
    site.docker.docker("rmi", image)
    assert len(os.listdir(layers)) == before - 2 or len(os.listdir(layers)) == before - 1  # others may have the base
    site.pull("site/ordinary")


def test_a_quota_is_refused_in_one_line_and_leaves_nothing(site: Site) -> None:
    image = site.pull("thin/site/published")
    before = site.docker.docker("ps", "-aq").stdout
    said = site.docker.run("--storage-opt", "size=1G", image, "/bin/true", status=None)
    assert "--storage-opt size: ducc sets no quotas" in said
    assert site.docker.docker("ps", "-aq").stdout == before


def test_docker_info_tells_which_dockers_and_which_repositories(site: Site) -> None:
    said = site.docker.docker("info").stdout
    assert f"Storage Driver: {site.driver.name}" in said
    assert "Docker: 20.10 to 27; for newer ones there is ducc-snapshotter" in said
    assert f"Repository {site.made.fqrn}: {site.mountpoint}" in said


# --- what comes from outside -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"version": "1.0", "layers": [{"digest": "../../etc", "url": "cvmfs://a.example.org/x"}]}', "digest"),
        ('{"version": "1.0", "layers": [{"digest": "%s", "url": "file:///etc"}]}' % ("a" * 64), "cvmfs://"),
        ('{"version": "1.0", "layers": [{"digest": "%s", "url": "cvmfs://a.b/../x"}]}' % ("a" * 64), "url"),
        ('{"version": "9.0", "layers": []}', "version"),
        ("[" * 100000, "thin.json"),
        ('{"version": "1.0", "layers": [{"digest": "%s", "url": "cvmfs://images.ducc.test/x"}]}' % ("a" * 64), "aaaa"),
    ],
    ids=["digest", "scheme", "way out", "version", "depth", "absent"],
)
def test_a_hostile_thin_image_is_refused_in_one_line_when_it_is_pulled(site: Site, text: str, reason: str) -> None:
    push(site.registry.host, "hostile/thin", "latest", Image([Layer.of(file("thin.json", text.encode()))]))
    done = site.docker.docker("pull", "--quiet", site.reference("hostile/thin"), status=1)
    (line,) = [line for line in done.stderr.splitlines() if "GraphDriver" in line or "thin.json" in line]
    assert reason in line
    assert len(line) < 1000


def test_a_repository_that_goes_is_told_and_comes_back(site: Site) -> None:
    image = site.pull("thin/site/published")
    site.unmount()
    said = site.docker.run(image, "/bin/true", status=None)
    assert f"{site.made.fqrn} is not mounted at {site.mountpoint}" in said
    site.mount()
    assert site.docker.run(image, "/bin/cat", "/etc/motd") == "changed\n"


# --- kills -----------------------------------------------------------------------------------


def test_the_driver_is_killed_and_restarted_under_running_containers(site: Site) -> None:
    image = site.pull("thin/site/published")
    container, other = site.start(image), site.start(image)
    site.exec(container, "echo kept >/kept")
    root = Path(f"/proc/{site.docker.docker('inspect', '--format', '{{.State.Pid}}', container).stdout.strip()}/root")
    site.driver.kill()
    assert (root / "kept").read_text() + (root / "etc/motd").read_text() == "kept\nchanged\n"
    site.driver.start()
    assert site.exec(container, "cat /kept; echo again >/again") == "kept\n"
    site.docker.docker("cp", f"{container}:/again", "-")
    assert len(site.mounted()) == 2
    site.docker.docker("stop", "--time", "0", container, other)
    assert site.mounted() == []
    site.docker.docker("start", container)
    assert site.exec(container, "cat /again") == "again\n"
    site.docker.docker("rm", "--force", container, other)
    assert site.mounted() == []


def test_the_daemon_is_killed_and_restarted_under_running_containers(site: Site) -> None:
    container = site.start(site.pull("thin/site/published"))
    site.exec(container, "echo kept >/kept")
    site.docker.kill()
    site.docker.start()
    assert site.exec(container, "cat /kept /etc/motd") == "kept\nchanged\n"
    assert len(site.mounted()) == 1
    site.docker.docker("rm", "--force", container)
    assert site.mounted() == []


def test_both_are_killed_while_images_are_pulled_and_nothing_is_half(site: Site) -> None:
    site.docker.docker("rmi", "--force", site.reference("site/deep"), status=None)
    pulling = subprocess.Popen(
        ["/usr/bin/docker", "--host", site.docker.address, "pull", "--quiet", site.reference("site/deep")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    layers = site.docker.directory / "data" / site.driver.name / "layers"
    before, deadline = len(os.listdir(layers)), time.monotonic() + PATIENCE_SECONDS
    while len(os.listdir(layers)) < before + 5 and time.monotonic() < deadline and pulling.poll() is None:
        time.sleep(0.01)
    site.driver.kill()
    site.docker.kill()
    pulling.wait(PATIENCE_SECONDS)
    site.driver.start()
    site.docker.start()
    assert site.docker.run(site.pull("site/deep"), "/bin/cat", "/deep/0", "/deep/63", "/top") == "06363"


def test_the_driver_is_found_by_a_file_that_names_its_socket(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("s")
    specs = Path("/etc/docker/plugins")
    specs.mkdir(parents=True, exist_ok=True)
    with running_graph_driver(top / "g", (site.made.fqrn, site.mountpoint)) as driver:
        for ending, text in (
            ("spec", f"unix://{driver.address}"),
            ("json", json.dumps({"Addr": f"unix://{driver.address}"})),
        ):
            named = specs / f"ducc-test-{ending}-{os.getpid()}.{ending}"
            named.write_text(text)
            options = ("--experimental", "--storage-driver", named.stem)
            try:
                with running_dockerd(top / ending, *options, registry=site.registry.host) as docker:
                    docker.docker("pull", "--quiet", site.reference("thin/site/published"))
                    assert docker.run(site.reference("thin/site/published"), "/bin/cat", "/etc/motd") == "changed\n"
            finally:
                named.unlink()
