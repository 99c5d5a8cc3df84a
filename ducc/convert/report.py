"""What became of the wishes of one pass."""

from dataclasses import dataclass
from typing import Any

from ducc.convert.record import ImageRecord
from ducc.errors import DuccError


@dataclass(frozen=True, slots=True)
class Effort:
    """What one image took. Layers are counted compressed; *fetched_bytes* are of those that nothing published had."""

    seconds: float
    layer_bytes: int = 0
    fetched_bytes: int = 0

    @property
    def shared_fraction(self) -> float:
        """How much of the image was there, or came with another one: 0 to 1."""
        return 1 - self.fetched_bytes / self.layer_bytes if self.layer_bytes else 1.0

    def to_json(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 3),
            "layer_bytes": self.layer_bytes,
            "fetched_bytes": self.fetched_bytes,
            "shared_fraction": round(self.shared_fraction, 4),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image: granted (now or before), failed by *error*, or left alone since the pass was stopped.

    *records* are of what was published now, one for each build; of an image that failed they are the builds that did
    not. The failure of an *ignored* wish is told and counts for nothing. *thin* is the image's thin image, by its name
    and digest: the registry has it.
    """

    image: str
    status: str  # "published", "unchanged", "failed", "stopped"
    error: DuccError | None = None
    records: tuple[ImageRecord, ...] = ()
    warnings: tuple[str, ...] = ()  # about the image as a whole; each record has its own
    effort: Effort | None = None
    ignored: bool = False
    thin: str | None = None

    @property
    def record(self) -> ImageRecord | None:
        """What was published, of an image with one build for all clients; else the first of its builds."""
        return self.records[0] if self.records else None

    @property
    def reason(self) -> str:
        """Why it failed, without the name of the image, which is said before."""
        return str(self.error or "").removeprefix(f"{self.image}: ")

    def to_json(self) -> dict[str, Any]:
        """What a program is told; of several builds each by its name under `builds`."""
        values: dict[str, Any] = {"image": self.image, "status": self.status}
        if self.error is not None:
            values["error"] = error_to_json(self.error)
            values["ignored"] = self.ignored
        if self.effort is not None:
            values |= self.effort.to_json()
        if self.thin is not None:
            values["thin"] = self.thin
        warnings = list(self.warnings)
        builds = {record.build: _record_to_json(record) for record in self.records if record.build}
        if builds:
            values["builds"] = builds
        elif self.record is not None:
            values |= _record_to_json(self.record)
            warnings += self.record.warnings
        if warnings or self.records:
            values["warnings"] = warnings
        return values


@dataclass(frozen=True, slots=True)
class Report:
    """*outcomes* in the order of the steps; *revision* is the one made, or None when nothing was to be published.

    A pass that was *stopped* while it still asked what there is to do has no outcomes.
    """

    outcomes: tuple[Outcome, ...]
    revision: int | None
    seconds: float
    stopped: bool = False

    @property
    def failed(self) -> list[Outcome]:
        """The failures that count."""
        return [outcome for outcome in self.outcomes if outcome.error is not None and not outcome.ignored]

    def to_json(self, fqrn: str) -> dict[str, Any]:
        """The run report, for programs."""
        return {
            "repository": fqrn,
            "revision": self.revision,
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
            "images": [outcome.to_json() for outcome in self.outcomes],
        }


def error_to_json(error: DuccError) -> dict[str, Any]:
    """An error as programs are told of it; *kind* is one of those in `docs/exit-status.md`."""
    return {"kind": type(error).__name__, "text": str(error), "retryable": error.retryable}


def _record_to_json(record: ImageRecord) -> dict[str, Any]:
    return {
        "root_hash": record.image_tree and str(record.image_tree),
        "config_digest": str(record.config_digest),
        "counters": dict(record.counters),
        "warnings": list(record.warnings),
    }
