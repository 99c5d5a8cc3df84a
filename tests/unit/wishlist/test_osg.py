import pytest

from ducc.image.reference import MalformedReference
from ducc.wishlist.osg import parse_osg_list
from ducc.wishlist.settings import WishSettings
from ducc.wishlist.wish import DuplicateWish, MalformedWishlist

HUB = "https://registry.hub.docker.com"


def read(*lines: str):
    return parse_osg_list("\n".join(lines).encode(), "docker_images.txt", "singularity.example.org")


@pytest.mark.parametrize(
    ("line", "image"),
    [
        ("opensciencegrid/osgvo-el9:latest", f"{HUB}/opensciencegrid/osgvo-el9:latest"),
        ("opensciencegrid/osgvo-el9", f"{HUB}/opensciencegrid/osgvo-el9:latest"),
        ("centos:centos7", f"{HUB}/library/centos:centos7"),
        ("ubuntu", f"{HUB}/library/ubuntu:latest"),
        ("  ubuntu  # the newest", f"{HUB}/library/ubuntu:latest"),
        ("ubuntu#comment", f"{HUB}/library/ubuntu:latest"),
        ("ubuntu\r", f"{HUB}/library/ubuntu:latest"),
        ("hub.opensciencegrid.org/htc/rocky:9", "https://hub.opensciencegrid.org/htc/rocky:9"),
        ("ghcr.io/project/sub/image:v1.*", "https://ghcr.io/project/sub/image:v1.*"),
        ("project/image:*", f"{HUB}/project/image:*"),
        ("registry.hub.docker.com/rootproject/root:6.32", f"{HUB}/rootproject/root:6.32"),
    ],
)
def test_a_line_is_an_image_with_the_documented_defaults(line, image):
    (wish,) = read("# list", "", line).wishes
    assert str(wish.reference) == image
    assert (wish.fqrn, wish.file, wish.line) == ("singularity.example.org", "docker_images.txt", 3)
    assert wish.settings == WishSettings()


def test_comments_and_blank_lines_are_no_wishes():
    assert read("# ubuntu", "", "   ", "\t# x").wishes == ()


def test_one_broken_line_fails_alone_at_its_place():
    wishlist = read("ubuntu", "  Upper/case:1", "me:s3cret@host.org/a:1", "docker.io/ubuntu", "fedora")
    assert [wish.reference.repository for wish in wishlist.wishes] == ["library/ubuntu", "library/fedora"]
    assert [(type(broken.error), broken.line, broken.column) for broken in wishlist.broken] == [
        (MalformedReference, 2, 3),
        (MalformedReference, 3, 1),
        (DuplicateWish, 4, 1),
    ]
    assert "s3cret" not in str(wishlist.broken)


def test_what_is_no_text_is_no_list():
    with pytest.raises(MalformedWishlist, match=r"docker_images.txt:1:3: not UTF-8"):
        parse_osg_list(b"ab\xff", "docker_images.txt", "singularity.example.org")
