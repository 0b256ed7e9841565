"""Stripe's wire format: nested form fields in, Stripe's JSON errors out."""

import re
import secrets
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from kit.ids import new_id
from kit.text import clean_text

MAX_FIELDS = 1000
MAX_DEPTH = 8
ID = re.compile(r"[A-Za-z0-9_]{1,255}")
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


class Refusal(Exception):
    """An error as Stripe answers it: `type`, `code`, `message` and the offending `param`."""

    def __init__(
        self,
        message: str,
        code: str | None = None,
        param: str | None = None,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"type": kind, "code": code, "message": message, "param": param} | more

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {name: value for name, value in self.error.items() if value is not None}}


class Declined(Refusal):
    """The bank's no to a charge (402 card_error): unlike other refusals it leaves its trace, the payment that failed."""

    def __init__(self, message: str, code: str, **more: Any) -> None:
        super().__init__(message, code, status=402, kind="card_error", **more)


def missing(noun: str, key: str, param: str = "id") -> Refusal:
    """Stripe's 404 for an object that does not exist."""
    shown = key if ID.fullmatch(key) else "?"
    return Refusal(f"No such {noun}: '{shown}'", "resource_missing", param, status=404)


def parse_form(raw: bytes) -> dict[str, Any]:
    """Form fields with brackets as nested dicts; lists stay dicts with their positions as keys. Raises Refusal."""
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
        pairs = [(clean_text(name), clean_text(value)) for name, value in pairs]
    except ValueError as broken:
        raise Refusal("The request could not be read: it must be form fields in UTF-8.") from broken
    fields: dict[str, Any] = {}
    for name, value in pairs:
        match = _KEY.fullmatch(name)
        if match is None:
            raise Refusal(f"Invalid parameter name: {name[:100]}", "parameter_unknown", name[:100])
        parts = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if len(parts) > MAX_DEPTH:
            raise Refusal(f"Parameter nested too deeply: {name[:100]}", "parameter_unknown", name[:100])
        _put(fields, parts, value, name)
    return fields


def _put(fields: dict[str, Any], parts: list[str], value: str, name: str) -> None:
    for part in parts[:-1]:
        inner = fields.setdefault(part or str(len(fields)), {})
        if not isinstance(inner, dict):
            raise Refusal(f"Invalid object: {name[:100]}", "parameter_invalid", name[:100])
        fields = inner
    last = parts[-1] or str(len(fields))
    if last in fields:
        raise Refusal(f"Received the parameter twice: {name[:100]}", "parameter_invalid", name[:100])
    fields[last] = value


def new_key(prefix: str, secret_bytes: int = 0) -> str:
    """An id that sorts by creation; `secret_bytes` make it unguessable."""
    return f"{prefix}_{new_id().hex}{secrets.token_hex(secret_bytes)}"


def epoch(at: datetime) -> int:
    """Whole seconds since 1970, as Stripe writes instants."""
    return int(at.timestamp())
