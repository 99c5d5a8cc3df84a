"""What an image must look like when it is mounted, by another program's judgement: `umoci unpack`.

Unpacking the big images takes longer than converting them, so the scans are kept beside the layout.
"""

import hashlib
import json
import pickle
import shutil
import tempfile
from pathlib import Path

from tests.images.workshop import CACHE, Built, locked
from tests.trees import Tree, scan, unpack

SCANNER = Path(__file__).parents[1] / "trees.py"


def expected_tree(image: Built) -> Tree:
    """The scan of the image as umoci unpacks it, from the cache or newly made."""
    place = CACHE / "trees" / image.tag
    with locked(place):
        kept = place / _key(image)
        if not kept.exists():
            for outdated in place.glob("tree-*"):
                outdated.unlink()
            _write(kept, pickle.dumps(_unpacked(image)))
        return pickle.loads(kept.read_bytes())


def _key(image: Built) -> str:
    """Changes with the image and with the program that scans."""
    manifests = json.loads((image.layout / "index.json").read_text())["manifests"]
    named = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in manifests}
    return "tree-" + hashlib.sha256(named[image.tag].encode() + SCANNER.read_bytes()).hexdigest()[:16]


def _unpacked(image: Built) -> Tree:
    bundle = Path(tempfile.mkdtemp(prefix="unpack-", dir=CACHE))
    try:
        return scan(unpack(image.layout, image.tag, bundle / "bundle"))
    finally:
        shutil.rmtree(bundle)


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.rename(path)
