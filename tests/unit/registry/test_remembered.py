from ducc.image.reference import Reference
from ducc.registry.client import Registry
from ducc.registry.remembered import Remembered
from ducc.transport import Transport
from tests.builders import Image, Layer, file
from tests.fakes.registry import fake_registry

LAYER = Layer.of(file("a"))
FIRST, SECOND = Image([LAYER], {"Cmd": ["first"]}), Image([LAYER], {"Cmd": ["second"]})


def resolved(server, name="some/image", tag="tag"):
    return Registry(Transport()).resolve(Reference.parse(server.reference(f":{tag}", name)))


def test_what_was_asked_for_by_tag_is_not_asked_for_again_by_digest():
    with fake_registry() as server:
        server.hold_image(FIRST)
        client, reference = Registry(Transport()), Reference.parse(server.reference())
        digest = client.resolve(reference).manifest.digest
        asked = len(server.seen)
        assert client.resolve(reference, digest=digest).config.raw == FIRST.config
        assert client.using(None).resolve(reference, digest=digest).manifest.raw == FIRST.manifest
        assert len(server.seen) == asked == 2


def test_a_tag_is_asked_for_each_time():
    with fake_registry() as server:
        server.hold_image(FIRST)
        client, reference = Registry(Transport()), Reference.parse(server.reference())
        assert client.resolve(reference).config.cmd == ("first",)
        server.hold_image(SECOND)
        assert client.resolve(reference).config.cmd == ("second",)


def test_nobody_is_given_what_others_may_read():
    with fake_registry() as server:
        server.hold_image(FIRST)
        manifest = resolved(server).manifest
        reference, elsewhere = (Reference.parse(server.reference(":x", name)) for name in ("some/image", "other"))
        documents = Remembered()
        documents.put((None, reference), manifest)
        assert documents.get((None, reference), manifest.digest) == manifest
        assert documents.get(("robot", reference), manifest.digest) is None
        assert documents.get((None, elsewhere), manifest.digest) is None


def test_it_keeps_what_was_asked_for_last_within_its_bound():
    with fake_registry() as server:
        reference = Reference.parse(server.reference())
        manifests = []
        for number in range(3):
            server.hold_image(Image([LAYER], {"Cmd": [f"{number}"]}))
            manifests.append(resolved(server).manifest)
        size = len(manifests[0].raw)
        documents = Remembered(most_bytes=2 * size + size // 2)
        for manifest in (manifests[0], manifests[1], manifests[1]):
            documents.put((None, reference), manifest)
        documents.get((None, reference), manifests[0].digest)
        documents.put((None, reference), manifests[2])
        known = [documents.get((None, reference), manifest.digest) is not None for manifest in manifests]
        assert known == [True, False, True]
