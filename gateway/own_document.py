"""The OpenAPI description of the paths that the gateway answers itself."""

from typing import Any

from gateway.problems import ClockBackward
from kit.errors import ValidationFailed, problems


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_TEXT = {"type": "string"}
_NOW = {"type": "object", "required": ["now"], "properties": {"now": {"type": "string", "format": "date-time"}}}
_HEALTH = {"type": "object", "required": ["status"], "properties": {"status": _TEXT}}
_READY = {
    "type": "object",
    "required": ["status", "services"],
    "properties": {
        "status": {"type": "string", "enum": ["ok", "unavailable"]},
        "services": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Health"}},
    },
}
_MOVE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "advance": {
            "type": "string",
            "examples": ["P31D"],
            "description": "an ISO 8601 duration",
        },
        "now": {"type": "string", "format": "date-time"},
    },
}

OWN_DOCUMENT: dict[str, Any] = {
    "tags": [
        {"name": "health", "description": "存活与就绪 / alive and ready"},
        {"name": "sandbox", "description": "仅沙箱环境 / the sandbox only"},
    ],
    "paths": {
        "/healthz": {
            "get": {
                "tags": ["health"],
                "operationId": "gateway_alive",
                "summary": "存活 / Alive",
                "responses": {"200": _answer("The gateway answers.", {"$ref": "#/components/schemas/Health"})},
            }
        },
        "/readyz": {
            "get": {
                "tags": ["health"],
                "operationId": "gateway_ready",
                "summary": "各服务的就绪状态 / Whether each service is ready",
                "responses": {
                    "200": _answer("Every service is ready.", {"$ref": "#/components/schemas/Readiness"}),
                    "503": _answer("At least one service is not.", {"$ref": "#/components/schemas/Readiness"}),
                },
            }
        },
        "/v1/sandbox/clock": {
            "get": {
                "tags": ["sandbox"],
                "operationId": "read_sandbox_clock",
                "summary": "产品时钟 / The product's clock",
                "responses": {"200": _answer("The present instant.", {"$ref": "#/components/schemas/ClockNow"})},
            },
            "post": {
                "tags": ["sandbox"],
                "operationId": "move_sandbox_clock",
                "summary": "把时钟向前拨，到期的事随即做完 / Move the clock forward; what has become due is done first",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ClockMove"}}},
                },
                "responses": {
                    "200": _answer("The instant reached.", {"$ref": "#/components/schemas/ClockNow"}),
                    **{str(status): answer for status, answer in problems(ClockBackward, ValidationFailed).items()},
                },
            },
        },
    },
    "components": {
        "schemas": {"ClockMove": _MOVE, "ClockNow": _NOW, "Health": _HEALTH, "Readiness": _READY},
    },
}
