"""The audit trail: every act of an admin is told, in the transaction of the act itself, by the service it happened in."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from fastapi import Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.auth import Caller
from kit.events import EVENTS, Event, emit
from kit.text import dump_json, scrub

HIDDEN = ("password", "secret", "token", "phone", "openid", "unionid", "hash", "sealed", "email")
"""Words of field names whose values are nobody's business, an auditor's neither."""
HIDDEN_VALUE = "***"
# Counters that follow every change: not what somebody did.
_FOLLOWING = frozenset({"version", "revision", "updated_at"})

_WROTE = text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")


class AdminActed(Event):
    """An admin did something to `target`; `before` and `after` hold what differs. Each teller has a class of its own."""

    actor_id: UUID
    action: str
    target: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


def fit(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Values as plain JSON, those of secrets and phones hidden at any depth."""
    if values is None:
        return None
    plain: dict[str, Any] = orjson.loads(dump_json(scrub(dict(values))))
    return {name: _hidden(name, value) for name, value in plain.items()}


def _hidden(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(name, item) for item in value]
    return HIDDEN_VALUE if value is not None and any(word in name for word in HIDDEN) else value


async def record(
    session: AsyncSession,
    action: str,
    target: object,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Tell what the calling admin does, with the fields of `before` and `after` that differ; no difference is no act.

    `session` must be the request's own. LookupError when its caller is no admin, or contracts hold no event for it.
    """
    caller: Caller | None = session.info.get("scope", {}).get("heika.caller")
    told = EVENTS.get(f"{session.info.get('service')}.admin.acted")
    if caller is None or caller.role != "admin" or told is None or not issubclass(told, AdminActed):
        raise LookupError(f"nobody to tell {action} of")
    session.info["audited"] = True
    old, new = fit(before), fit(after)
    if old is not None and new is not None:
        names = [name for name in new if name not in _FOLLOWING and old.get(name) != new[name]]
        if not names:
            return
        old, new = {name: old.get(name) for name in names}, {name: new[name] for name in names}
    await emit(session, told(actor_id=caller.id, action=action, target=str(target), before=old, after=new))


async def complete(request: Request, session: AsyncSession) -> None:
    """Tell of an act whose endpoint did not: under its own name, without before and after. Reading is no act."""
    caller: Caller | None = request.scope.get("heika.caller")
    if (
        caller is None
        or caller.role != "admin"
        or "audited" in session.info
        or request.method in ("GET", "HEAD")
        or not request.url.path.startswith("/v1/admin/")
        or f"{session.info.get('service')}.admin.acted" not in EVENTS
        or not (await session.execute(_WROTE)).scalar_one()
    ):
        return
    target = "/".join(map(str, request.path_params.values())) or request.url.path
    await record(session, getattr(request.scope.get("endpoint"), "__name__", "acted"), target)
