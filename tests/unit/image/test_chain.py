"""Names of stacks of layers."""

import hashlib

from ducc.image.chain import chain_ids
from ducc.image.digest import Digest

A, B, C = (Digest(letter * 64) for letter in "abc")


def sha256(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def test_the_lowest_chain_is_its_layer() -> None:
    assert chain_ids([A]) == [A]


def test_each_chain_is_the_digest_of_the_one_below_and_its_layer() -> None:
    second = sha256(f"sha256:{'a' * 64} sha256:{'b' * 64}")
    assert chain_ids([A, B, C]) == [A, second, sha256(f"{second} {C}")]


def test_no_layers_have_no_chain() -> None:
    assert chain_ids([]) == []
