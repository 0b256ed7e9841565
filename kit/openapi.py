"""A service's OpenAPI document: problems in place of FastAPI's own error shapes, and the headers every call knows."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from kit.auth import OPTIONAL_SCHEME, ReadOnlySession
from kit.errors import PROBLEM_SCHEMA, Forbidden, NotAuthenticated, Problem, TooManyRequests, ValidationFailed, problems
from kit.idempotency import (
    EXAMPLE_KEY,
    IdempotencyInFlight,
    IdempotencyKeyInvalid,
    IdempotencyKeyRequired,
    IdempotencyKeyReused,
)

METHODS = ("get", "put", "post", "delete", "patch")

_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "同一个键的重试只生效一次 / retries with one key take effect once; 1–255 characters, kept 48 hours",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


_VERSION = {
    "name": "If-Match",
    "in": "header",
    "description": "上次读到的 ETag；版本已变则 412 / the ETag last read; 412 when somebody changed it since",
    "schema": {"type": "string", "maxLength": 200},
}


def operation_id(route: APIRoute) -> str:
    """The endpoint function's name, which is unique across the services (a test says so)."""
    return route.name


def service_document(app: FastAPI) -> dict[str, Any]:
    """The document of one service, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            routes=app.routes,
            webhooks=app.webhooks.routes,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        schemas["Problem"] = PROBLEM_SCHEMA
        document |= with_references(document, _name_anew(schemas))
        document["components"].get("securitySchemes", {}).pop(OPTIONAL_SCHEME, None)
        for item in document["paths"].values():
            for method in METHODS:
                if method in item:
                    _complete(method, item[method])
        app.openapi_schema = document
    return app.openapi_schema


def _name_anew(schemas: dict[str, Any]) -> dict[str, str]:
    """Call pages and forms as a class may be called, `OrderPage`, `ImportCoursesForm`; what references change into what."""
    changed = {}
    for name in [name for name in schemas if name.startswith(("Body_", "Page_"))]:
        kind, *words = name.strip("_").split("_")
        said = f"{''.join(word.capitalize() for word in words)}Form" if kind == "Body" else schemas[name]["title"]
        schemas[said] = schemas.pop(name) | {"title": said}
        changed[f"#/components/schemas/{name}"] = f"#/components/schemas/{said}"
    return changed


def with_references(value: Any, changed: Mapping[str, str]) -> Any:
    """A copy in which references lead to their new names."""
    if isinstance(value, dict):
        return {
            key: changed.get(item, item) if key == "$ref" and isinstance(item, str) else with_references(item, changed)
            for key, item in value.items()
        }
    return [with_references(item, changed) for item in value] if isinstance(value, list) else value


def _complete(method: str, operation: dict[str, Any]) -> None:
    # A docstring's first line says what the call does; the endpoint's name, which FastAPI takes, only names it.
    summary, _, rest = operation.pop("description", "").partition("\n")
    operation |= ({"summary": summary.rstrip(".")} if summary else {}) | ({"description": rest.strip()} if rest else {})
    if {OPTIONAL_SCHEME: []} in operation.get("security", ()):
        operation["security"] = [{}, {"bearer": []}]
    responses = operation["responses"]
    if "412" in responses:
        operation.setdefault("parameters", []).append(_VERSION)
    takes_input = "422" in responses or operation.get("parameters") or operation.get("requestBody")
    if "422" in responses and "application/problem+json" not in responses["422"].get("content", {}):
        del responses["422"]
    usual: list[type[Problem]] = [TooManyRequests]
    usual += [ValidationFailed] if takes_input else []
    usual += [NotAuthenticated, Forbidden] if operation.get("security") else []
    usual += [ReadOnlySession] if operation.get("security") and method != "get" else []
    key = operation.pop("x-idempotency-key", None)
    if method == "post" and key is not None:
        usual += [IdempotencyKeyInvalid, IdempotencyKeyReused, IdempotencyInFlight]
        usual += [IdempotencyKeyRequired] if key == "required" else []
        parameters = operation.setdefault("parameters", [])
        # Filled in for the caller only where nothing goes without one.
        required = {"required": True, "example": EXAMPLE_KEY} if key == "required" else {"required": False}
        parameters.append(_KEY | required)
    for status, answer in problems(*usual).items():
        mine = responses.setdefault(str(status), answer)
        if mine is not answer and "application/problem+json" in mine.get("content", {}):
            examples = mine["content"]["application/problem+json"].setdefault("examples", {})
            examples |= answer["content"]["application/problem+json"]["examples"]
