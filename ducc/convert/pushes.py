"""Thin images are pushed when what they speak of is published; whatever fails here, that stays."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from ducc.convert.plan import Convert, PushThin, Step
from ducc.convert.published import Published
from ducc.convert.report import Outcome
from ducc.convert.stop import Stop, Stopped, Threads
from ducc.convert.thin import thin_push
from ducc.errors import DuccError, UnexpectedFailure
from ducc.registry.client import Registry

log = logging.getLogger(__name__)

PUSHES_AT_A_TIME = 8


class ThinImages:
    """Pushes the thin images of a pass, once what they speak of is published. Each fails alone."""

    def __init__(self, registry: Registry, published: Published, stop: Stop) -> None:
        self._registry, self._published, self._stop = registry, published, stop

    def push(self, steps: Sequence[Step], outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Return the outcomes with what became of the thin images; those of images that failed are left as they are."""
        pairs = list(zip(steps, outcomes, strict=True))
        with Threads(PUSHES_AT_A_TIME, "push", self._stop) as threads:
            futures = [threads.submit(self._after, step, outcome) for step, outcome in pairs]
            found = []
            for (_, outcome), future in zip(pairs, futures, strict=True):
                try:
                    found.append(self._stop.result(future))
                except Stopped:
                    found.append(outcome)
        return tuple(found)

    def _after(self, step: Step, outcome: Outcome) -> Outcome:
        if not isinstance(step, Convert | PushThin) or step.thin is None:
            return outcome
        if outcome.status not in ("published", "unchanged"):
            return outcome
        try:
            return replace(outcome, thin=self._push(step))
        except DuccError as error:
            failure = error
        except Exception as error:  # a fault of ours in one wish must not cost the others
            log.error("unexpected failure: image=%s", outcome.image, exc_info=error)
            failure = UnexpectedFailure(error)
        return replace(outcome, status="failed", error=failure, ignored=step.settings.ignore_errors)

    def _push(self, step: Convert | PushThin) -> str | None:
        """Push the thin image of *step*, if the registry has another one or none; say under which name and digest."""
        if isinstance(step.thin, DuccError):
            raise step.thin
        image = thin_push(self._published.fqrn, step.reference, self._published)
        if step.thin is None or image is None:
            return None
        if self._registry.pushed(step.thin) != image.digest:
            self._registry.push(step.thin, image)
            log.info("thin image pushed: image=%s thin=%s digest=%s", step.reference, step.thin, image.digest)
        return f"{step.thin}@{image.digest}"
