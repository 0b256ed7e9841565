"""The export: everything a service holds about the caller, row by row, for the gateway to gather from all of them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asyncpg import Range
from fastapi import APIRouter, Request, Response
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.auth import MemberDep
from kit.db import SessionDep
from kit.http import json_response

if TYPE_CHECKING:
    from kit.app import Runtime, Service

PATH = "/internal/export"
OWNER = "member_id"
# What lets its holder in is not told to anybody; what identifies the caller is theirs to know.
KEPT = ("secret", "token", "password", "sealed", "code_hash")

Export = Callable[["Runtime", AsyncSession, UUID], Awaitable[dict[str, Any]]]
"""A service's own way to say what it holds about a member, in place of `rows_about`."""


async def rows_about(
    session: AsyncSession, metadata: MetaData, member_id: UUID, where: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Every row about a member, by table: those of each table with a `member_id`, and those that `where` names.

    `where` holds, by table, the SQL condition with `:member_id` in it that tells whose a row is.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, table in sorted(metadata.tables.items()):
        condition = where.get(name, f"{OWNER} = :member_id" if OWNER in table.c else "")
        if not condition:
            continue
        columns = ", ".join(f'"{column.name}"' for column in table.c if not any(word in column.name for word in KEPT))
        # The names are those of our own tables, and the condition is written by the service.
        statement = text(f'SELECT {columns} FROM "{name}" WHERE {condition}')  # noqa: S608
        rows = (await session.execute(statement, {"member_id": member_id})).all()
        found[name] = [_readable(row._fields, row) for row in rows]
    return found


def _readable(names: tuple[str, ...], row: Any) -> dict[str, Any]:
    return {name: _told(value) for name, value in zip(names, row, strict=True)}


def _told(value: Any) -> Any:
    """A column's value as JSON has it: bytes in hex, spans of time or of seconds as pairs `[from, to]`."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Range):
        return [value.lower, value.upper]
    return [_told(item) for item in value] if isinstance(value, list) else value


def export_router(service: "Service", runtime_of: "Callable[[Any], Runtime]") -> APIRouter:
    """The route behind which the gateway finds a service's part; the caller's own token says about whom.

    Nothing beyond what the token's owner may see is ever told, so that the route needs no other protection than that
    it is not reachable through the gateway.
    """
    router = APIRouter(include_in_schema=False)

    async def export(caller: MemberDep, session: SessionDep, request: Request) -> Response:
        if service.export is not None:
            held = await service.export(runtime_of(request), session, caller.id)
        else:
            held = await rows_about(session, service.metadata, caller.id, service.personal)
        return json_response(held, headers={"Cache-Control": "private, no-store"})

    router.add_api_route(PATH, export, methods=["GET"])
    return router
