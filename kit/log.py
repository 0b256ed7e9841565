"""Structured logs: one JSON object a line, with request and trace ids, without personal data."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from kit.text import dump_json
from kit.trace import current_request_id

_PRIVATE = frozenset(
    {"phone", "code", "token", "password", "secret", "email", "authorization", "cookie", "refresh_token"}
)


def _with_request(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "request_id" not in fields and (request_id := current_request_id()):
        fields["request_id"] = request_id
    return fields


def _without_private(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in _PRIVATE & fields.keys():
        fields[name] = "***"
    return fields


def configure_logs(level: str = "info") -> None:
    """Write logs to standard error as JSON lines from this level up; safe to call again."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_request,
            _without_private,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda fields, **_: dump_json(fields).decode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # Looked up at each line: whoever exchanges sys.stderr may close the one before.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
