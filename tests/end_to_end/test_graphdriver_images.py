"""What containers of real images see by our graph driver: all of the image, as with Docker's overlay2.

Each image is run thin, and pulled as it is, and compared with what umoci makes of it; and with what overlay2 shows,
if it can pull it: it fails over hard links to files of lower layers, and over whiteouts where a file took the place
of a directory.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.dockerd import Dockerd, running_dockerd
from tests.end_to_end.published import expected
from tests.graph_site import Site, comparable, container_tree, running_site
from tests.images.pushed import PushedImage
from tests.registry import Registry
from tests.trees import differences

pytestmark = pytest.mark.engine

NAMES = ("base", "pruned", "small", "small-docker", "small-mixed")
NOT_BY_DOCKER = ("small-mixed",)  # a layer in zstd
NOT_BY_OVERLAY2 = ("pruned", "small", "small-docker", "small-mixed")


@pytest.fixture(scope="module")
def site(
    registry: Registry, images: Callable[[str], PushedImage], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    for name in NAMES:
        images(name)
    with running_site(tmp_path_factory.mktemp("i"), registry, *(f"test/{name}" for name in NAMES)) as site:
        yield site


@pytest.fixture(scope="module")
def overlay2(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    with running_dockerd(tmp_path_factory.mktemp("o") / "d", "-s", "overlay2", registry=registry.host) as docker:
        yield docker


@pytest.mark.parametrize("name", NAMES)
def test_containers_of_thin_images_see_the_whole_image(
    site: Site, images: Callable[[str], PushedImage], name: str
) -> None:
    wanted = comparable(expected(images(name)))
    assert differences(container_tree(site.docker, site.pull(f"thin/test/{name}")), wanted) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_BY_DOCKER])
def test_containers_of_pulled_images_see_the_whole_image(
    site: Site, images: Callable[[str], PushedImage], name: str
) -> None:
    wanted = comparable(images(name).tree)
    assert differences(container_tree(site.docker, site.pull(f"test/{name}")), wanted) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_BY_OVERLAY2])
def test_containers_see_what_they_would_see_with_overlay2(site: Site, overlay2: Dockerd, name: str) -> None:
    """Less the times of directories that no layer describes, and times before 1970: overlay2 makes them up."""
    overlay2.docker("pull", "--quiet", site.reference(f"test/{name}"))
    wanted = container_tree(overlay2, site.reference(f"test/{name}"))
    seen = container_tree(site.docker, site.pull(f"test/{name}"))
    assert differences(seen, wanted, ignore=("mtime_ns",)) == []
