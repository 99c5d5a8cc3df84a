"""An image of the family in a registry: what most end-to-end tests start from."""

from dataclasses import dataclass

from tests.images.oracle import expected_tree
from tests.images.workshop import Built
from tests.trees import Tree


@dataclass(frozen=True)
class PushedImage:
    """*reference* is host:port/name:tag; the registry speaks plain http, so a wish for it needs `http://`."""

    built: Built
    reference: str

    @property
    def wish(self) -> str:
        """The line of a wishlist that asks for it."""
        return f"http://{self.reference}"

    @property
    def public_path(self) -> str:
        """Where it appears below the root of a repository."""
        return self.reference

    @property
    def tree(self) -> Tree:
        """What it must look like there (less the apptainer files)."""
        return expected_tree(self.built)
