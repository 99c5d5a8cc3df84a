"""Manifests and configs that have come already: by digest, which names the same bytes for ever.

Who measures an image before it is fetched would ask twice for the same, and registries count how often they are asked.
"""

import threading
from collections import OrderedDict

from ducc.image.config import ImageConfig
from ducc.image.digest import Digest
from ducc.image.manifest import Index, Manifest
from ducc.image.reference import Reference

MOST_BYTES = 16 << 20  # of documents as they came

Document = Manifest | Index | ImageConfig
Asker = tuple[str | None, Reference]  # by which credentials, for which image


class Remembered:
    """The documents asked for last. Nobody is given what was let out to other credentials, or from another image."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._documents: OrderedDict[tuple[str, ...], Document] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, asker: Asker, digest: Digest) -> Document | None:
        """The document of that digest, if it is still known."""
        with self._lock:
            document = self._documents.get(key := _key(asker, digest))
            if document is not None:
                self._documents.move_to_end(key)
            return document

    def put(self, asker: Asker, document: Document) -> None:
        """Keep a document that was verified; those that nobody has asked for the longest make room."""
        with self._lock:
            before = self._documents.pop(key := _key(asker, document.digest), None)
            self._bytes -= 0 if before is None else len(before.raw)
            self._documents[key] = document
            self._bytes += len(document.raw)
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._documents.popitem(last=False)[1].raw)


def _key(asker: Asker, digest: Digest) -> tuple[str, ...]:
    credentials, reference = asker
    return credentials or "", reference.base_url, reference.repository, str(digest)
