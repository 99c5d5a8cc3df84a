"""Published images while their registry is down: real engines ask `ducc serve --registry` in its place."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from tests.builders import Image, Index, Layer, file, push, sha256, write_layout
from tests.containerd import Containerd, running_containerd
from tests.dockerd import running_dockerd
from tests.end_to_end import stock
from tests.end_to_end.published import Published, repository
from tests.images.small import system
from tests.leftovers import mounts
from tests.needs import need_fuse, need_program, need_root
from tests.registry import Registry, running_registry
from tests.snapshotter import running_snapshotter

SETTINGS = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}
PUBLISHED = Image([Layer.of(*system()), Layer.of(file("etc/motd", b"published\n"))], SETTINGS)
ARM = Image([Layer.of(file("etc/motd", b"arm\n"))], SETTINGS, {"os": "linux", "architecture": "arm64"})
SEVERAL = Index([PUBLISHED, ARM])
LATER = Image([Layer.of(*system()), Layer.of(file("etc/motd", b"later\n"))], SETTINGS)
PAUSE = Image([Layer.of(*system())], {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sleep", "100000"]})


@dataclass
class Site:
    """A node with a repository's mount, the mirror on it, and containerd; *dead* is the registry that is gone."""

    dead: str
    made: Published
    mountpoint: Path
    mirror: str
    containerd: Containerd

    @property
    def mirror_host(self) -> str:
        return self.mirror.removeprefix("http://")


@pytest.fixture(scope="module")
def site(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("site")
    with repository(top / "repository") as made:
        with running_registry(top / "registry") as dead:
            host = dead.host
            push(host, "node/published", "latest", PUBLISHED)
            push(host, "node/several", "latest", SEVERAL)
            push(host, "node/pause", "latest", PAUSE)
            push(registry.host, "mirrored/alive", "latest", PUBLISHED)
            wishes = [f"http://{host}/node/{name}:latest" for name in ("published", "several", "pause")]
            made.convert(*wishes, f"http://{registry.host}/mirrored/alive:latest")
            push(host, "library/hub-image", "latest", PUBLISHED)
            settings = top / "registries.yaml"
            settings.write_text(f"registries: {{docker.io: {{mirrors: [{{url: 'http://{host}'}}]}}}}\n")
            made.convert("https://registry.hub.docker.com/library/hub-image:latest", options=["--registries", settings])
        with made.served() as url, made.mounted(url) as mountpoint:
            address = mirror(made, mountpoint, "--default-registry", host)
            with (
                running_snapshotter(top / "s", (made.fqrn, mountpoint)) as program,
                running_containerd(top / "c", program.address, f"{host}/node/pause:latest") as containerd,
            ):
                for name in (host, registry.host):
                    containerd.add_mirror(name, address)
                yield Site(host, made, mountpoint, address, containerd)
        assert mounts(top) == []


def mirror(made: Published, mountpoint: Path, *options: str) -> str:
    """The URL of a new mirror, which is stopped with the repository's console."""
    log = made.directory / f"mirror-{time.monotonic_ns()}.log"
    process = made.ducc.start("serve", "--registry", mountpoint, *options, "--port", 0, log=log)
    while not (line := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    return line[0]


def test_a_kubelet_starts_a_published_image_whose_registry_is_down(site: Site) -> None:
    kubelet, reference = site.containerd.kubelet, f"{site.dead}/node/published:latest"
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{site.dead}/v2/", timeout=60)
    with kubelet.pod("web") as sandbox:  # its own image comes from the repository, too
        kubelet.pull(reference)
        container = kubelet.start(sandbox, "web", "main", reference, "/bin/sleep", "1000")
        assert kubelet.execute(container, "/bin/cat", "/etc/motd") == "published\n"
        kubelet.remove(container)


def test_a_kubelet_pulls_by_digest_and_chooses_from_an_index(site: Site) -> None:
    kubelet = site.containerd.kubelet
    assert kubelet.pull(f"{site.dead}/node/published@{sha256(PUBLISHED.manifest)}") == sha256(PUBLISHED.config)
    assert kubelet.pull(f"{site.dead}/node/several:latest") == sha256(PUBLISHED.config)
    assert site.containerd.run(f"{site.dead}/node/several:latest", "one", "/bin/cat", "/etc/motd") == "published\n"


def test_what_the_mirror_refuses_comes_from_the_registry_itself(site: Site, registry: Registry) -> None:
    reference = f"{registry.host}/mirrored/alive:latest"
    before = len(registry.requests())
    site.containerd.ctr("images", "pull", "--hosts-dir", site.containerd.hosts, "--snapshotter", "overlayfs", reference)
    asked = registry.requests()[before:]
    assert {sha256(layer.blob) for layer in PUBLISHED.layers} == {
        request.path.rpartition("/")[2] for request in asked if request.is_blob and request.status == 200
    }
    assert not [request for request in asked if "/manifests/" in request.path]  # those came from the mirror
    assert site.containerd.run(reference, "two", "/bin/cat", "/etc/motd", snapshotter="overlayfs") == "published\n"


def test_an_image_that_is_published_nowhere_fails_with_the_registrys_own_error(site: Site) -> None:
    refused = site.containerd.ctr(
        "images", "pull", "--hosts-dir", site.containerd.hosts, f"{site.dead}/node/unknown:latest", status=None
    )
    assert refused.returncode != 0
    assert "connection refused" in refused.stderr or "not found" in refused.stderr


def test_skopeo_inspects_what_is_published(site: Site) -> None:
    for name, image in (("published", PUBLISHED), ("several", SEVERAL)):
        told = skopeo("inspect", "--raw", f"docker://{site.mirror_host}/node/{name}:latest")
        assert told.stdout.encode() == image.manifest
    told = json.loads(skopeo("inspect", f"docker://{site.mirror_host}/node/published:latest").stdout)
    assert told["Digest"] == sha256(PUBLISHED.manifest)
    assert told["Layers"] == [sha256(layer.blob) for layer in PUBLISHED.layers]
    assert told["RepoTags"] == ["latest"]
    config = skopeo("inspect", "--config", "--raw", f"docker://{site.mirror_host}/node/published:latest")
    assert config.stdout.encode() == PUBLISHED.config


def test_skopeo_asks_it_as_a_mirror_for_all_but_layers(site: Site, tmp_path: Path) -> None:
    registries = registries_conf(tmp_path, site.dead, site.mirror_host)
    image = f"docker://{site.dead}/node/published:latest"
    assert skopeo("inspect", "--raw", image, registries=registries).stdout.encode() == PUBLISHED.manifest
    copied = skopeo("copy", image, f"dir:{tmp_path}/copy", registries=registries, status=1)
    assert f"reading blob {sha256(PUBLISHED.layers[0].blob)}" in copied.stderr
    assert "404" in copied.stderr


def test_engines_that_unpack_images_themselves_pull_what_is_kept_beside(site: Site, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "kept", {"latest": PUBLISHED})
    address = mirror(site.made, site.mountpoint, "--default-registry", site.dead, "--archives", str(layout))
    registries = registries_conf(tmp_path, site.dead, address.removeprefix("http://"))
    image = f"{site.dead}/node/published:latest"
    skopeo("copy", f"docker://{image}", f"oci:{tmp_path}/copy:latest", registries=registries)
    copied = {path.name for path in (tmp_path / "copy" / "blobs" / "sha256").iterdir()}
    assert {sha256(blob).removeprefix("sha256:") for blob in PUBLISHED.blobs} <= copied
    need_program("podman")
    environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(registries)}
    with TemporaryDirectory() as place:  # podman wants short paths
        podman = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver=vfs"]
        pulled = subprocess.run([*podman, "pull", image], capture_output=True, text=True, timeout=120, env=environment)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.strip() == sha256(PUBLISHED.config).removeprefix("sha256:")


def test_docker_pulls_what_is_kept_of_docker_hub(
    site: Site, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    layout = write_layout(tmp_path / "kept", {"latest": PUBLISHED})
    address = mirror(site.made, site.mountpoint, "--archives", str(layout))
    options = ["--registry-mirror", address, "--storage-driver", "overlay2"]
    short = tmp_path_factory.mktemp("o") / "d"  # for the socket of its containerd
    with running_dockerd(short, *options) as docker:  # it can reach no Docker Hub
        docker.docker("pull", "hub-image")
        assert docker.run("hub-image", "cat", "/etc/motd") == "published\n"


def test_a_revision_that_is_published_meanwhile_is_served(site: Site, registry: Registry) -> None:
    push(registry.host, "mirrored/moving", "latest", PUBLISHED)
    wish = f"http://{registry.host}/mirrored/moving:latest"
    path = f"{site.mirror}/v2/mirrored/moving/manifests/{{}}?ns={registry.host}"
    for image in (PUBLISHED, LATER):
        push(registry.host, "mirrored/moving", "latest", image)
        site.made.convert(wish)
        site.made.ducc("client", "reload", site.mountpoint)
        for locator in ("latest", sha256(image.manifest)):
            got = requests.get(path.format(locator), timeout=60)
            assert got.content == image.manifest
    assert requests.get(path.format(sha256(PUBLISHED.manifest)), timeout=60).status_code == 404


@pytest.mark.engine
def test_it_reads_a_mount_of_the_stock_client_as_well(site: Site) -> None:
    stock.need_stock()
    with site.made.served() as url, stock.mounted(site.made, url) as mountpoint:
        address = mirror(site.made, mountpoint)
        for locator in ("latest", sha256(PUBLISHED.manifest)):
            path = f"{address}/v2/node/published/manifests/{locator}?ns={site.dead}"
            assert requests.get(path, timeout=60).content == PUBLISHED.manifest


def test_a_mount_that_is_gone_is_no_proof_that_an_image_is_not_published(site: Site, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    address = mirror(site.made, seen)
    path = f"{address}/v2/node/published/manifests/latest?ns={site.dead}"
    for _ in range(2):
        assert requests.get(path, timeout=60).status_code == 503
        subprocess.run(["mount", "--bind", site.mountpoint, seen], check=True)
        try:
            assert requests.get(path, timeout=60).status_code == 200
        finally:
            subprocess.run(["umount", "--lazy", seen], check=True)


def registries_conf(directory: Path, registry: str, asked_first: str) -> Path:
    """A file by which podman and its kin ask a mirror first."""
    path = directory / "registries.conf"
    mirror = f'[[registry.mirror]]\nlocation = "{asked_first}"\ninsecure = true\n'
    path.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n{mirror}')
    return path


def skopeo(*words: str, registries: Path | None = None, status: int = 0) -> "subprocess.CompletedProcess[str]":
    need_program("skopeo")
    insecure = "--src-tls-verify=false" if words[0] == "copy" else "--tls-verify=false"
    settings = [f"--registries-conf={registries}"] if registries else []
    command = ["skopeo", "--insecure-policy", *settings, words[0], insecure, *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, f"{command}: {done.stdout}\n{done.stderr}"
    return done
