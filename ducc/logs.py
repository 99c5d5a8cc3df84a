"""The log: one line an event on standard error, for people and for log collectors alike."""

import json
import logging
import sys
from datetime import UTC, datetime

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def set_up(verbosity: int, *, as_json: bool = False) -> None:
    """Log warnings and worse; with each step of *verbosity* (0, 1, 2) more. *as_json*: an object a line."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if as_json else plain)
    logger = logging.getLogger("ducc")
    logger.handlers = [handler]
    logger.setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])


class JsonLines(logging.Formatter):
    """`time` (RFC 3339, UTC), `level`, `logger`, `message`, and `exception` if there is one; always one line."""

    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values)
