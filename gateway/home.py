"""What an H5 home page needs in one call, and a member's dashboard in another."""

from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope

from gateway.inbound import Inbound
from gateway.own import Own, tagged
from gateway.parts import Parts
from gateway.public_parts import PublicParts, Question
from kit import clock
from kit.errors import Forbidden, NotAuthenticated
from kit.http import json_response
from kit.text import dump_json

PRIVATE = {"Cache-Control": "private, no-store"}


async def _contest(public: PublicParts, inbound: Inbound) -> dict[str, Any] | None:
    """The open contest with its first three."""
    contests = await public.items("showcase", "/v1/contests?phase=open&limit=1", inbound)
    if not contests:
        return None
    top = await public.items("showcase", f"/v1/contests/{contests[0]['id']}/leaderboard?limit=3", inbound)
    return {**contests[0], "top": top}


async def _check_in(parts: Parts) -> dict[str, Any] | None:
    """The streak, and today's check-in when there is one."""
    month = await parts.one("members", "/v1/me/check-ins")
    if month is None:
        return None
    today = clock.today().isoformat()
    return {"streak": month["streak"], "today": next((day for day in month["items"] if day["day"] == today), None)}


def _for_everybody(public: PublicParts, inbound: Inbound) -> dict[str, tuple[str, Question]]:
    """The public parts by name: whose each is, and how it is asked for."""
    # What is on now comes first, as it began before all that is to come.
    lessons = "/v1/live-lessons?coming=true&limit=5"
    courses = "/v1/courses?sort=new&limit=6"
    return {
        "plans": ("billing", lambda: public.items("billing", "/v1/plans?limit=100", inbound)),
        "live_lessons": ("courses", lambda: public.items("courses", lessons, inbound)),
        "courses": ("courses", lambda: public.items("courses", courses, inbound)),
        "contest": ("showcase", lambda: _contest(public, inbound)),
    }


def endpoints(upstreams: Mapping[str, ASGIApp], public: PublicParts) -> dict[str, Own]:
    """`/v1/home` and `/v1/me/dashboard`."""

    async def home(_: Scope, inbound: Inbound, __: Receive) -> Response:
        parts = Parts(upstreams, inbound)
        questions: dict[str, Awaitable[Any]] = {
            name: parts.public(service, public.get(name, question), empty=None if name == "contest" else [])
            for name, (service, question) in _for_everybody(public, inbound).items()
        }
        if inbound.caller is not None and inbound.caller.role == "member":
            questions |= {
                "membership": parts.one("members", "/v1/me/membership"),
                "coupons": parts.items("referrals", "/v1/me/coupons?status=issued"),
                "check_in": _check_in(parts),
            }
        elif inbound.caller is None and inbound.authorization is not None:
            # The token could not be checked: its keys are with members, who does not answer.
            parts.degraded.add("members")
        answer = await parts.together(**questions)
        if inbound.authorization is not None or parts.degraded:
            return json_response(answer, headers=PRIVATE)
        response = tagged(dump_json(answer), "application/json", "public, max-age=5", inbound)
        # Who logs in meanwhile must not be shown what their browser kept of before.
        response.headers["Vary"] = "Authorization"
        return response

    async def dashboard(_: Scope, inbound: Inbound, __: Receive) -> Response:
        if inbound.authorization is None:
            raise NotAuthenticated
        if inbound.caller is not None and inbound.caller.role != "member":
            raise Forbidden
        parts = Parts(upstreams, inbound)
        answer = await parts.together(
            membership=parts.one("members", "/v1/me/membership"),
            learning=parts.items("courses", "/v1/me/learning"),
            coupons=parts.items("referrals", "/v1/me/coupons"),
            invitees=parts.items("referrals", "/v1/me/invitees"),
            entries=parts.items("showcase", "/v1/entries"),
        )
        return json_response(answer, headers=PRIVATE)

    return {"/v1/home": {"GET": home}, "/v1/me/dashboard": {"GET": dashboard}}
