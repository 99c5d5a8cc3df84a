"""Lists of images as the Open Science Grid keeps them (`docker_images.txt`): lines to wishes.

    # a comment, also behind a name
    opensciencegrid/osgvo-el9:latest
    ghcr.io/project/image:v1.*

A name is `[registry/][namespace/]name[:tag]`, Docker's short form: registry Docker Hub, namespace `library` and tag
`latest` unless said. The list says nothing of a repository or of settings. One broken line fails alone.
"""

from ducc.errors import DuccError
from ducc.image.reference import Reference, shown
from ducc.wishlist.document import decoded
from ducc.wishlist.settings import WishSettings
from ducc.wishlist.wish import BrokenWish, Places, Wish, Wishlist


def parse_osg_list(data: bytes, path: str, fqrn: str, settings: WishSettings | None = None) -> Wishlist:
    """The wishes of a list, all for the repository *fqrn*, all with the same *settings*; *path* names it in errors.

    Raises `MalformedWishlist` if it is no text.
    """
    wishes: list[Wish] = []
    broken: list[BrokenWish] = []
    places = Places()
    for number, line in enumerate(decoded(data, path).splitlines(), 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        try:
            reference = Reference.parse(name)
            places.take(reference, number)
        except DuccError as error:
            broken.append(BrokenWish(number, line.index(name) + 1, shown(name), error, path))
        else:
            wishes.append(Wish(reference, fqrn, None, None, path, number, settings or WishSettings()))
    return Wishlist(path, fqrn, tuple(wishes), tuple(broken))
