"""A directory with what a repository's mount shows of images to whoever serves them."""

from pathlib import Path

from ducc import layout
from ducc.image.reference import Reference
from tests import builders

NAME = "registry.example.org/physics/analysis"
HUB = "registry.hub.docker.com/library/python"


def image(text: str = "content", flavour: str = "oci") -> builders.Image:
    return builders.Image(
        [builders.Layer.of(builders.file("etc/motd", text.encode()))], {"Cmd": [text]}, flavour=flavour
    )


def put(
    mount: Path, named: str, published: builders.Image, index: builders.Index | None = None, build: str = ""
) -> None:
    """Publish *published* as *named*; with *build*, as one of several."""
    reference = Reference.parse(f"https://{named}")
    write(mount, layout.metadata_file(reference, "manifest.json", build), published.manifest)
    write(mount, layout.metadata_file(reference, "config.json", build), published.config)
    if index is not None:
        write(mount, layout.metadata_file(reference, "index.json"), index.manifest)


def write(mount: Path, path: bytes, data: bytes) -> None:
    target = mount / path.decode()[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
