"""From labels to the layer that is asked for: text from outside becomes digests, or is refused."""

import pytest

from ducc.image.digest import Digest, MalformedDigest
from ducc.rootfs.locate import StackedLayer
from snapshotter.remote import LAYER_LABELS, TARGET, wanted_layer
from snapshotter.snapshots import Kind, Snapshot

LAYER, BELOW, STACK = Digest("1a" * 32), Digest("2b" * 32), Digest("3c" * 32)


def asked(layer: str = str(LAYER), label: str = LAYER_LABELS[0], target: str = str(STACK)) -> dict[str, str]:
    return {label: layer, TARGET: target, "other": "x"}


def committed(name: str, layer: StackedLayer | None = None) -> Snapshot:
    return Snapshot(1, name, "", Kind.COMMITTED, {}, 0, 0, layer=layer)


@pytest.mark.parametrize("label", LAYER_LABELS)
def test_both_families_of_labels_say_the_layer(label: str) -> None:
    assert wanted_layer(asked(label=label), None) == StackedLayer(LAYER, None, STACK)


@pytest.mark.parametrize(
    "text", ["", "sha256:..", "1a" * 32, "sha256:" + "1a" * 31, "sha512:" + "1a" * 64, "sha256:/\0"]
)
def test_a_label_that_is_no_digest_names_no_layer(text: str) -> None:
    for labels in (asked(layer=text), asked(target=text)):
        with pytest.raises(MalformedDigest):
            wanted_layer(labels, None)


def test_without_labels_no_layer_is_named() -> None:
    with pytest.raises(MalformedDigest, match="annotate"):
        wanted_layer({TARGET: str(STACK)}, None)


@pytest.mark.parametrize(
    "below",
    [
        committed(str(BELOW)),
        committed(f"k8s.io/12/{BELOW}"),
        committed("anything", StackedLayer(LAYER, None, BELOW)),
        committed(f"{STACK}", StackedLayer(LAYER, None, BELOW)),
    ],
)
def test_the_chain_below_is_the_published_ones_own_or_what_containerd_calls_it(below: Snapshot) -> None:
    assert wanted_layer(asked(), below).below == BELOW


@pytest.mark.parametrize("name", ["own-base", f"x{BELOW}", f"default/1/{BELOW}x", f"default/1/{BELOW}\n"])
def test_what_lies_on_something_without_a_chain_id_is_no_published_layer(name: str) -> None:
    with pytest.raises(MalformedDigest, match="chain id"):
        wanted_layer(asked(), committed(name))
