"""Which images a wish may stand for, whatever its registry has just now. Pure."""

from ducc.image.reference import Reference
from ducc.wishlist.glob import matches


def may_mean(wish: Reference, image: Reference) -> bool:
    """Would the wish stand for the image if its registry said so?"""
    if (wish.registry, wish.repository) != (image.registry, image.repository):
        return False
    if wish.tag is None or image.tag is None:
        return (wish.tag, wish.digest) == (image.tag, image.digest)
    return matches(wish.tag, image.tag)
