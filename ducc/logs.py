"""The log: one line an event on standard error, for people and for log collectors alike."""

import logging
import sys

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def set_up(verbosity: int) -> None:
    """Log warnings and worse; with each step of *verbosity* (0, 1, 2) more."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ducc")
    logger.handlers = [handler]
    logger.setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])
