"""The OpenAPI description of the paths that the gateway answers itself."""

from typing import Any

from gateway.problems import ClockBackward
from kit.errors import PROBLEM_SCHEMA, Forbidden, NotAuthenticated, NotFound, ValidationFailed, problems


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
            "maxLength": 64,
            "examples": ["P31D"],
            "description": "an ISO 8601 duration",
        },
        "now": {"type": "string", "format": "date-time"},
    },
}


def _one(shape: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{shape}"}


def _list(shape: str) -> dict[str, Any]:
    return {"type": "array", "items": _one(shape)}


def _maybe(*shapes: dict[str, Any], description: str) -> dict[str, Any]:
    """A thing of these shapes at once, or null."""
    thing = shapes[0] if len(shapes) == 1 else {"allOf": [*shapes]}
    return {"anyOf": [thing, {"type": "null"}], "description": description}


# The parts are what the services answer, so that a page knows their fields as well as those of the calls themselves.
_DEGRADED = {"type": "array", "items": _TEXT, "description": "services that did not answer in time"}
_TOP = {"type": "object", "required": ["top"], "properties": {"top": _list("LeaderOut")}}
_CHECK_IN = {
    "type": "object",
    "required": ["streak", "today"],
    "properties": {
        "streak": {"type": "integer"},
        "today": _maybe(_one("CheckInOut"), description="today's check-in"),
    },
}
_HOME = {
    "type": "object",
    "required": ["plans", "live_lessons", "courses", "contest", "degraded"],
    "properties": {
        "plans": _list("PlanOut"),
        "live_lessons": _list("LiveLessonOut"),
        "courses": _list("CourseOut"),
        "contest": _maybe(_one("ContestOut"), _TOP, description="the open contest; `top` holds its first three"),
        "membership": _maybe(_one("MembershipOut"), description="the caller's membership"),
        "coupons": _list("CouponOut"),
        "check_in": _maybe(_CHECK_IN, description="`streak`, and `today` once checked in"),
        "degraded": _DEGRADED,
    },
}
_DASHBOARD = {
    "type": "object",
    "required": ["membership", "learning", "coupons", "invitees", "entries", "degraded"],
    "properties": {
        "membership": _maybe(_one("MembershipOut"), description="null when members did not answer in time"),
        "learning": _list("LearningItem"),
        "coupons": _list("CouponOut"),
        "invitees": _list("Invitee"),
        "entries": _list("EntryOut"),
        "degraded": _DEGRADED,
    },
}

_EXPORT = {
    "type": "object",
    "description": "what members holds, and each other service's rows by table under its name",
    "required": ["exported_at", "missing"],
    "properties": {
        "exported_at": {"type": "string", "format": "date-time"},
        "profile": {"type": "object"},
        "phone": {"type": ["string", "null"]},
        "billing": {"type": "object"},
        "courses": {"type": "object"},
        "referrals": {"type": "object"},
        "showcase": {"type": "object"},
        "missing": {"type": "array", "items": _TEXT, "description": "services that did not answer; ask again later"},
    },
}

OWN_DOCUMENT: dict[str, Any] = {
    "paths": {
        "/v1/home": {
            "get": {
                "tags": ["home"],
                "operationId": "read_home",
                "summary": "首页所需的一切 / What a home page needs in one call",
                "description": "`degraded` names the services of which a part is missing; a logged-in member sees more.",
                "security": [{}, {"bearer": []}],
                "responses": {"200": _answer("The home page.", {"$ref": "#/components/schemas/Home"})},
            }
        },
        "/v1/me/dashboard": {
            "get": {
                "tags": ["home"],
                "operationId": "read_dashboard",
                "summary": "会员的个人面板 / A member's dashboard in one call",
                "security": [{"bearer": []}],
                "responses": {
                    "200": _answer("The dashboard.", {"$ref": "#/components/schemas/Dashboard"}),
                    **{str(status): answer for status, answer in problems(NotAuthenticated, Forbidden).items()},
                },
            }
        },
        "/v1/me/export": {
            "get": {
                "tags": ["home"],
                "operationId": "export_member",
                "summary": "关于本人的一切数据 / Everything held about the caller, in every service",
                "security": [{"bearer": []}],
                "responses": {
                    "200": _answer("The document.", {"$ref": "#/components/schemas/Export"}),
                    **{str(s): answer for s, answer in problems(NotAuthenticated, Forbidden, NotFound).items()},
                },
            }
        },
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
        "schemas": {
            "ClockMove": _MOVE,
            "ClockNow": _NOW,
            "Dashboard": _DASHBOARD,
            "Export": _EXPORT,
            "Health": _HEALTH,
            "Home": _HOME,
            "Problem": PROBLEM_SCHEMA,
            "Readiness": _READY,
        },
    },
}
