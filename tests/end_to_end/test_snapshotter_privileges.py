"""What a file may do beyond its caller, it may in a container on published layers as after a normal pull."""

import struct
from collections.abc import Iterator

import pytest

from tests.builders import Image, Layer, file, push
from tests.containerd import NAME, Containerd, running_containerd
from tests.end_to_end.published import repository
from tests.golang import built
from tests.images.small import system
from tests.leftovers import mounts
from tests.needs import need_fuse, need_root
from tests.registry import Registry
from tests.snapshotter import running_snapshotter

WHO = """
package main

import (
	"fmt"
	"os"
)

func main() {
	secret, err := os.ReadFile("/secret")
	if err != nil {
		secret = []byte("denied")
	}
	fmt.Print(os.Geteuid(), " ", string(secret))
}
"""
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 1, 0, 0, 0)  # cap_dac_override, effective
USER = "1000:1000"


@pytest.fixture(scope="module")
def containerd(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    need_root()
    need_fuse()
    top = tmp_path_factory.mktemp("privileges")
    (top / "go").mkdir()
    needs = "github.com/containerd/containerd"
    program = built(top / "go", WHO, package="golang-github-containerd-containerd-dev", needs=needs).read_bytes()
    files = [
        file("secret", b"secret", mode=0o600),
        file("bin/ordinary", program, mode=0o755),
        file("bin/as-root", program, mode=0o4755),
        file("bin/as-group", program, mode=0o2755),
        file("bin/capable", program, mode=0o755, xattrs={"security.capability": CAPABILITY}),
    ]
    image = Image([Layer.of(*system()), Layer.of(*files)], {"Env": ["PATH=/bin"], "User": USER})
    push(registry.host, "privileges/image", "latest", image)
    reference = f"{registry.host}/privileges/image:latest"
    with repository(top / "repository") as made:
        made.convert(f"http://{reference}")
        with (
            made.served() as url,
            made.mounted(url) as mountpoint,
            running_snapshotter(top / "s", (made.fqrn, mountpoint)) as snapshotter,
            running_containerd(top / "c", snapshotter.address, reference) as running,
        ):
            running.kubelet.pull(reference)
            assert snapshotter.log.read_text().count("started from the repository") == len(image.layers)
            running.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference)
            yield running
        assert mounts(top) == []


@pytest.mark.parametrize(
    ("program", "said"),
    [("ordinary", "1000 denied"), ("as-root", "0 secret"), ("as-group", "1000 denied"), ("capable", "1000 secret")],
)
@pytest.mark.parametrize("snapshotter", [NAME, "overlayfs"])
def test_a_program_has_the_privileges_that_its_file_gives(
    snapshotter: str, program: str, said: str, containerd: Containerd, registry: Registry
) -> None:
    reference = f"{registry.host}/privileges/image:latest"
    run = ("run", "--rm", "--snapshotter", snapshotter, "--allow-new-privs")
    assert containerd.ctr(*run, reference, f"{program}-{snapshotter}", f"/bin/{program}").stdout == said
