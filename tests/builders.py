"""Images as values: tar entries, layers, images and indexes made from Python values, every byte decided here.

For what no image tool would make: hostile tars, wrong digests, odd compressions, attestation entries. The tar
writer is our own, so that a header holds exactly what a test says: xattrs are raw bytes in pax records, as
Go's writer leaves them; names are bytes; nothing is normalised.

    image = Image([Layer.of(file("etc/motd", b"hello"), whiteout("etc/issue"))])
    write_layout(directory, {"latest": image})      # an OCI layout, for umoci and skopeo
    push("127.0.0.1:5000", "greeting", "latest", image)  # the bytes as they are, to a registry
"""

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import urljoin

import requests
import zstandard

Json = dict[str, object]
LONG_AGO = 1_600_000_000 * 10**9  # the mtime of entries that do not say one

REGULAR, HARD_LINK, SYMLINK = b"0", b"1", b"2"
CHARACTER, BLOCK, DIRECTORY, FIFO = b"3", b"4", b"5", b"6"


@dataclass(frozen=True)
class Entry:
    """One tar member. *pax* holds extra raw records and wins over what the other fields would say."""

    path: bytes
    type: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = LONG_AGO
    data: bytes = b""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pax: Mapping[str, bytes] = field(default_factory=dict)


def file(path: str | bytes, data: bytes = b"", **attributes: object) -> Entry:
    return replace(Entry(os.fsencode(path), data=data), **attributes)


def directory(path: str | bytes, **attributes: object) -> Entry:
    return replace(Entry(os.fsencode(path), DIRECTORY, mode=0o755), **attributes)


def symlink(path: str | bytes, target: str | bytes, **attributes: object) -> Entry:
    return replace(Entry(os.fsencode(path), SYMLINK, mode=0o777, target=os.fsencode(target)), **attributes)


def hard_link(path: str | bytes, target: str | bytes, **attributes: object) -> Entry:
    """Attributes matter: an extractor applies the link's own mode, owner and time to the shared inode."""
    return replace(Entry(os.fsencode(path), HARD_LINK, target=os.fsencode(target)), **attributes)


def fifo(path: str | bytes, **attributes: object) -> Entry:
    return replace(Entry(os.fsencode(path), FIFO), **attributes)


def character_device(path: str | bytes, major: int, minor: int, **attributes: object) -> Entry:
    return replace(Entry(os.fsencode(path), CHARACTER, device=(major, minor)), **attributes)


def block_device(path: str | bytes, major: int, minor: int, **attributes: object) -> Entry:
    return replace(Entry(os.fsencode(path), BLOCK, device=(major, minor)), **attributes)


def whiteout(path: str | bytes) -> Entry:
    """Hide *path* of the layers below."""
    parent, name = os.path.split(os.fsencode(path))
    return Entry(os.path.join(parent, b".wh." + name))


def opaque(path: str | bytes) -> Entry:
    """Hide everything that the layers below have in the directory *path*; its own entry is not included."""
    return Entry(os.path.join(os.fsencode(path), b".wh..wh..opq"))


# --- tar -----------------------------------------------------------------------------------


def tar(entries: Iterable[Entry]) -> bytes:
    """A pax archive of *entries* in their order, closed by two empty blocks."""
    return b"".join(map(member, entries)) + bytes(1024)


def member(entry: Entry) -> bytes:
    """Header and padded data of one entry, after a pax header where ustar cannot say it all."""
    records = {**_overflow(entry), **_xattr_records(entry), **entry.pax}
    extension = b"" if not records else _pax_header(entry, records)
    return extension + header(entry, len(entry.data)) + _padded(entry.data)


def header(entry: Entry, size: int) -> bytes:
    """One ustar header block; fields that do not fit are cut, a pax record says them in full."""
    path = entry.path + b"/" if entry.type == DIRECTORY and not entry.path.endswith(b"/") else entry.path
    block = b"".join(
        (
            path[:100].ljust(100, b"\0"),
            _octal(entry.mode & 0o7777, 8),
            _octal(entry.uid, 8),
            _octal(entry.gid, 8),
            _octal(size, 12),
            _octal(entry.mtime_ns // 10**9, 12),
            b" " * 8,
            entry.type,
            entry.target[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(entry.device[0], 8),
            _octal(entry.device[1], 8),
            bytes(167),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _overflow(entry: Entry) -> dict[str, bytes]:
    """What a ustar header cannot hold: long names, big ids, fractions of a second."""
    records = {}
    if len(entry.path) > 99:
        records["path"] = entry.path
    if len(entry.target) > 100:
        records["linkpath"] = entry.target
    for key, number in (("uid", entry.uid), ("gid", entry.gid)):
        if number >= 8**7:
            records[key] = b"%d" % number
    seconds, fraction = divmod(abs(entry.mtime_ns), 10**9)
    if fraction or entry.mtime_ns < 0 or seconds >= 8**11:
        sign = b"-" if entry.mtime_ns < 0 else b""
        records["mtime"] = b"%b%d.%09d" % (sign, seconds, fraction)
    return records


def _xattr_records(entry: Entry) -> dict[str, bytes]:
    return {f"SCHILY.xattr.{name}": value for name, value in entry.xattrs.items()}


def _pax_header(entry: Entry, records: Mapping[str, bytes]) -> bytes:
    data = b"".join(_pax_record(os.fsencode(key), value) for key, value in records.items())
    carrier = Entry(b"PaxHeaders/" + os.path.basename(entry.path.rstrip(b"/"))[:80], b"x")
    return header(carrier, len(data)) + _padded(data)


def _pax_record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`, where the length counts its own digits."""
    body = b" %b=%b\n" % (key, value)
    length = len(body)
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d%b" % (length, body)


def _octal(number: int, width: int) -> bytes:
    digits = b"%0*o" % (width - 1, max(number, 0) % 8 ** (width - 1))
    return digits + b"\0"


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


# --- layers, images, indexes ---------------------------------------------------------------

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
LAYER_TYPES = {
    ("oci", "gzip"): f"{OCI}.layer.v1.tar+gzip",
    ("oci", "zstd"): f"{OCI}.layer.v1.tar+zstd",
    ("oci", "none"): f"{OCI}.layer.v1.tar",
    ("docker", "gzip"): f"{DOCKER}.image.rootfs.diff.tar.gzip",
    ("docker", "zstd"): f"{DOCKER}.image.rootfs.diff.tar.zstd",
    ("docker", "none"): f"{DOCKER}.image.rootfs.diff.tar",
}
MANIFEST_TYPES = {"oci": f"{OCI}.manifest.v1+json", "docker": f"{DOCKER}.distribution.manifest.v2+json"}
CONFIG_TYPES = {"oci": f"{OCI}.config.v1+json", "docker": f"{DOCKER}.container.image.v1+json"}
INDEX_TYPES = {"oci": f"{OCI}.index.v1+json", "docker": f"{DOCKER}.distribution.manifest.list.v2+json"}


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Layer:
    """A tar and how it travels. *diff_id* may lie; so may *blob*, for damaged streams."""

    tar: bytes
    compression: str = "gzip"
    diff_id: str = ""
    blob: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "diff_id", self.diff_id or sha256(self.tar))
        object.__setattr__(self, "blob", self.blob or compress(self.tar, self.compression))

    @classmethod
    def of(cls, *entries: Entry, compression: str = "gzip") -> "Layer":
        return cls(tar(entries), compression)


def compress(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(data, 6, mtime=0)
    return zstandard.compress(data) if compression == "zstd" else data


@dataclass(frozen=True)
class Image:
    """A config and layers, base first. *settings* is the config's `config` member (Env, Cmd, Labels …)."""

    layers: Sequence[Layer]
    settings: Json = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=lambda: {"os": "linux", "architecture": "amd64"})
    flavour: str = "oci"
    parts: ClassVar[tuple[()]] = ()

    @property
    def media_type(self) -> str:
        return MANIFEST_TYPES[self.flavour]

    @property
    def config(self) -> bytes:
        root = {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]}
        history = [{"created_by": f"layer {number}"} for number in range(len(self.layers))]
        return _json({**self.platform, "config": self.settings, "rootfs": root, "history": history})

    @property
    def manifest(self) -> bytes:
        layers = [descriptor(LAYER_TYPES[self.flavour, layer.compression], layer.blob) for layer in self.layers]
        config = descriptor(CONFIG_TYPES[self.flavour], self.config)
        return _json(
            {"schemaVersion": 2, "mediaType": self.media_type, "config": config, "layers": layers},
        )

    @property
    def blobs(self) -> list[bytes]:
        return [self.config, *(layer.blob for layer in self.layers)]


@dataclass(frozen=True)
class Attestation:
    """What build tools put beside an image in an index: platform unknown/unknown, a layer that is no tar."""

    subject: Image
    statement: bytes = b'{"_type":"https://in-toto.io/Statement/v0.1"}'
    media_type: str = MANIFEST_TYPES["oci"]
    platform: Mapping[str, str] = field(default_factory=lambda: {"os": "unknown", "architecture": "unknown"})
    parts: ClassVar[tuple[()]] = ()

    @property
    def blobs(self) -> list[bytes]:
        return [_json({"rootfs": {"type": "layers", "diff_ids": [sha256(self.statement)]}}), self.statement]

    @property
    def manifest(self) -> bytes:
        config, statement = self.blobs
        layers = [descriptor("application/vnd.in-toto+json", statement)]
        config_descriptor = descriptor(CONFIG_TYPES["oci"], config)
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": config_descriptor,
                "layers": layers,
            }
        )

    @property
    def annotations(self) -> Json:
        subject = sha256(self.subject.manifest)
        return {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": subject,
        }


@dataclass(frozen=True)
class Index:
    """Images by platform, in their order; attestations may stand among them."""

    parts: Sequence[Image | Attestation]
    flavour: str = "oci"

    @property
    def media_type(self) -> str:
        return INDEX_TYPES[self.flavour]

    @property
    def manifest(self) -> bytes:
        manifests = [_index_entry(part) for part in self.parts]
        return _json({"schemaVersion": 2, "mediaType": self.media_type, "manifests": manifests})

    @property
    def blobs(self) -> list[bytes]:
        return []


def _index_entry(part: Image | Attestation) -> Json:
    annotations = {"annotations": part.annotations} if isinstance(part, Attestation) else {}
    return {**descriptor(part.media_type, part.manifest), "platform": dict(part.platform), **annotations}


def descriptor(media_type: str, data: bytes) -> Json:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def _json(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- where images go -----------------------------------------------------------------------


def write_layout(layout: Path, images: Mapping[str, Image | Index]) -> Path:
    """Write an OCI layout with one reference per tag; what the layout held before stays unreferenced."""
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    entries = []
    for tag, image in images.items():
        for part in (*image.parts, image):
            _write_blobs(layout, [*part.blobs, part.manifest])
        annotations = {"org.opencontainers.image.ref.name": tag}
        entries.append({**descriptor(image.media_type, image.manifest), "annotations": annotations})
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": entries}))
    return layout


def _write_blobs(layout: Path, blobs: Iterable[bytes]) -> None:
    for blob in blobs:
        (layout / "blobs" / "sha256" / sha256(blob).removeprefix("sha256:")).write_bytes(blob)


def push(registry: str, name: str, tag: str, image: Image | Index) -> str:
    """Upload *image* byte for byte to the plain-http *registry* (host:port); return its manifest's digest.

    Parts of an index are pushed first, by digest: a registry refuses an index whose parts it lacks.
    """
    base = f"http://{registry}/v2/{name}/"
    for part in image.parts:
        push(registry, name, sha256(part.manifest), part)
    for blob in image.blobs:
        _push_blob(base, blob)
    headers = {"Content-Type": image.media_type}
    url = urljoin(base, f"manifests/{tag}")
    requests.put(url, image.manifest, headers=headers, timeout=60).raise_for_status()
    return sha256(image.manifest)


def _push_blob(base: str, blob: bytes) -> None:
    if requests.head(urljoin(base, f"blobs/{sha256(blob)}"), timeout=60).ok:
        return
    started = requests.post(urljoin(base, "blobs/uploads/"), timeout=60)
    started.raise_for_status()
    location = urljoin(base, started.headers["Location"])
    requests.put(location, blob, params={"digest": sha256(blob)}, timeout=600).raise_for_status()
