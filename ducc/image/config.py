"""Image configs: how the programs of an image want to be started, and the diff ids of its layers.

The bytes are kept as they came; their digest is the image's id. Strings are data: nothing in them steers this program.
Source: OCI image-spec, config.md. Pure: no I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ducc.errors import DuccError
from ducc.image.digest import Digest, MalformedDigest
from ducc.image.manifest import Platform
from ducc.image.strictjson import Fields, MalformedDocument, read_object


class MalformedConfig(DuccError):
    """An image config breaks its own specification."""

    exit_code = 41


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a runtime is told about an image. `None` and an empty command are different things to it."""

    raw: bytes = field(repr=False)
    digest: Digest
    platform: Platform
    created: str | None
    env: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    labels: Mapping[str, str] = field(hash=False)
    user: str
    working_dir: str
    diff_ids: tuple[Digest, ...]  # of the layers, base first
    layers_in_history: int | None  # as the history tells; None when it tells nothing

    @property
    def architecture(self) -> str:
        return self.platform.architecture

    @property
    def os(self) -> str:
        return self.platform.os

    @classmethod
    def parse(cls, raw: bytes, source: str = "") -> "ImageConfig":
        """Read a config. *source* names it in errors, its digest by default."""
        digest = Digest.of(raw)
        source = source or f"config {digest}"
        try:
            return _config(raw, digest, read_object(raw, source))
        except MalformedDocument as error:
            raise MalformedConfig(str(error)) from error
        except MalformedDigest as error:
            raise MalformedConfig(f"{source}: diff_ids: {error}") from error


def _config(raw: bytes, digest: Digest, fields: Fields) -> ImageConfig:
    settings = fields.child("config") or Fields({}, fields.source)
    return ImageConfig(
        raw,
        digest,
        Platform(fields.text("os"), fields.text("architecture"), fields.text("variant", "")),
        fields.text("created", "") or None,
        settings.texts("Env") or (),
        settings.texts("Entrypoint"),
        settings.texts("Cmd"),
        settings.text_map("Labels"),
        settings.text("User", ""),
        settings.text("WorkingDir", ""),
        _diff_ids(fields),
        _layers_in_history(fields),
    )


def _diff_ids(fields: Fields) -> tuple[Digest, ...]:
    rootfs = fields.child("rootfs")
    if rootfs is None or rootfs.text("type") != "layers":
        raise MalformedConfig(f"{fields.source}: 'rootfs' must be there, of type 'layers'")
    return tuple(Digest.parse(text) for text in rootfs.texts("diff_ids") or ())


def _layers_in_history(fields: Fields) -> int | None:
    history = fields.children("history")
    return sum(step.get("empty_layer") is not True for step in history) if history else None
