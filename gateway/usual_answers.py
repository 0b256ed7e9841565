"""Answers that any operation may give, described once: what the front refuses, and what trouble behind it becomes."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from gateway.problems import AmbiguousAuthorization, AmbiguousPath, BadUpstream, UpstreamTimeout, UpstreamUnavailable
from gateway.routes import find
from kit.errors import DatabaseUnavailable, Internal, NotAuthenticated, PayloadTooLarge, TooManyRequests, problems

_NAMES: Final = {
    "400": "BadRequest",
    "401": "NotAuthenticated",
    "413": "PayloadTooLarge",
    "429": "TooManyRequests",
    "500": "Internal",
    "502": "BadUpstream",
    "503": "Unavailable",
    "504": "UpstreamTimeout",
}
_ANSWERS: Final = {
    str(status): answer
    for status, answer in problems(
        AmbiguousPath,
        AmbiguousAuthorization,
        NotAuthenticated,
        PayloadTooLarge,
        TooManyRequests,
        Internal,
        BadUpstream,
        UpstreamUnavailable,
        DatabaseUnavailable,
        UpstreamTimeout,
    ).items()
}
_BEHIND: Final = {"502", "503", "504"}

_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

# A name of more codes says less than the answer where it stands.
_NAMED_CODES: Final = 4

SHARED: Final = {name: _ANSWERS[status] for status, name in _NAMES.items()}
"""The described answers, as `components/responses`."""


def complete(path: str, operation: dict[str, Any]) -> None:
    """Add to an operation the usual answers that it does not describe itself."""
    route = find(path.replace("{", "").replace("}", ""))
    if route is None or path in ("/healthz", "/readyz"):
        usual = {"500"}
    else:
        # 400: a path or header that cannot be understood.
        usual = {"400", "429", "500"} | ({"401"} if route.checks_bearer else set())
        usual |= set() if route.service == "gateway" else _BEHIND
        usual |= {"413"} if "requestBody" in operation else set()
    responses = operation["responses"]
    for status in sorted(usual - responses.keys()):
        responses[status] = {"$ref": f"#/components/responses/{_NAMES[status]}"}
    for status in usual & _BEHIND:
        if "content" in responses[status]:
            responses[status] = _either(responses[status], _ANSWERS[status])


def _either(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """One status for the problems of both: what an operation cannot reach itself, and what cannot be reached before it."""
    kind = "application/problem+json"
    told, more = one["content"][kind], other["content"][kind]
    content = {kind: told | {"examples": told["examples"] | more["examples"]}}
    return one | {"description": f"{one['description']}\n\n{other['description']}", "content": content}


def shared(operations: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Name the problems that several operations answer alike, refer to them by name there, and return them by name.

    Told where they stand they were two thirds of the document.
    """
    told = [
        (item["responses"], status, answer)
        for item in operations
        for status, answer in item["responses"].items()
        if "application/problem+json" in answer.get("content", {})
    ]
    times = Counter(json.dumps(answer, sort_keys=True) for _, _, answer in told)
    named = dict(SHARED)
    for responses, status, answer in told:
        codes = answer["content"]["application/problem+json"]["examples"]
        usual = next((name for name, same in SHARED.items() if same == answer), None)
        name = usual or "Or".join("".join(word.capitalize() for word in code.split("_")) for code in codes)
        worth_it = usual or (times[json.dumps(answer, sort_keys=True)] > 1 and len(codes) <= _NAMED_CODES)
        if worth_it and named.setdefault(name, answer) == answer:
            responses[status] = {"$ref": f"#/components/responses/{name}"}
    return named


def sized(value: Any) -> Any:
    """A copy in which every whole number is described as one of 64 bits: fen and counts outgrow 32."""
    if isinstance(value, dict):
        kind = value.get("type")
        whole = kind == "integer" or (isinstance(kind, list) and set(kind) - {"null"} == {"integer"})
        more = {"format": "int64"} if whole and "format" not in value else {}
        # Pydantic tells bounds of numbers as floats, and generated clients then compare with those.
        return {key: int(item) if key in _BOUNDS and whole else sized(item) for key, item in value.items()} | more
    return [sized(item) for item in value] if isinstance(value, list) else value
