"""Where a registry has what belongs to an image: URLs, as oras names them."""

from oras.container import Container

from ducc.image.digest import Digest
from ducc.image.reference import Reference


def manifest_url(reference: Reference, locator: str) -> str:
    """A manifest, by tag or digest."""
    return _url(reference, _container(reference).manifest_url(locator))


def blob_url(reference: Reference, digest: Digest) -> str:
    return _url(reference, _container(reference).get_blob_url(str(digest)))


def upload_url(reference: Reference) -> str:
    """Where the upload of a blob begins."""
    return _url(reference, _container(reference).upload_blob_url())


def tags_url(reference: Reference, at_a_time: int) -> str:
    return _url(reference, _container(reference).tags_url(at_a_time))


def _container(reference: Reference) -> Container:
    """Oras' parser gets one harmless component: `localhost/a.b/c` it would read as host a.b."""
    namespace, _, name = reference.repository.rpartition("/")
    container = Container(name)
    container.registry, container.namespace = reference.host, namespace
    return container


def _url(reference: Reference, place: str) -> str:
    return f"{reference.scheme}://{place}"
