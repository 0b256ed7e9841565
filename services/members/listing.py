"""The member list as a CSV file: streamed in portions, however long it is, and noted in the audit."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi.responses import StreamingResponse
from sqlalchemy import select, tuple_
from sqlmodel import col

from kit import clock
from kit.app import Runtime, RuntimeDep, router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.text import instant
from kit.vault import open_vault
from services.members import audit
from services.members.directory import AdminMemberOut, shown
from services.members.finding import MemberFilter, MemberFilterDep
from services.members.models import Member

api = router(prefix="/v1/admin/members.csv", tags=["admin members"])

PORTION = 1000
COLUMNS = (
    "id",
    "nickname",
    "phone",
    "tier",
    "roles",
    "labels",
    "frozen",
    "membership",
    "ends_at",
    "points",
    "created_at",
)
BOM = "\ufeff"
"""By which spreadsheets know the file for UTF-8."""


@api.get(
    "",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}, "description": f"`{','.join(COLUMNS)}`"}},
)
async def download_members(
    caller: Annotated[Caller, admin_with("members:read")],
    session: SessionDep,
    rt: RuntimeDep,
    wanted: MemberFilterDep,
) -> StreamingResponse:
    """Every member that meets the filters, the newest first, as CSV; several labels or roles are joined by `;`."""
    audit.record(session, caller, "members.exported", caller.id, after={k: v for k, v in vars(wanted).items() if v})
    name = f"members-{clock.today().isoformat()}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    return StreamingResponse(_lines(rt, wanted), media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(rt: Runtime, wanted: MemberFilter) -> AsyncIterator[str]:
    """The file, a portion at a time, each in a transaction of its own: a slow reader holds up no clean-up."""
    yield BOM + _written([COLUMNS])
    vault = open_vault(rt.settings.key)
    order = tuple_(col(Member.created_at), col(Member.id))
    after: tuple[object, object] | None = None
    while True:
        async with rt.db.session() as session:
            statement = await wanted.apply(session, vault, select(Member))
            if after is not None:
                statement = statement.where(order < tuple_(*after))
            newest = statement.order_by(col(Member.created_at).desc(), col(Member.id).desc()).limit(PORTION)
            members = list((await session.execute(newest)).scalars())
            portion = await shown(session, vault, members)
        if portion:
            yield _written([_row(member) for member in portion])
        if len(members) < PORTION:
            return
        after = (members[-1].created_at, members[-1].id)


def _row(member: AdminMemberOut) -> tuple[object, ...]:
    ends_at = member.membership.ends_at
    return (
        member.id,
        _inert(member.nickname),
        member.phone or "",
        member.tier,
        ";".join(member.roles),
        _inert(";".join(member.labels)),
        str(member.frozen).lower(),
        member.membership.status,
        instant(ends_at) if ends_at else "",
        member.points,
        instant(member.created_at),
    )


def _inert(value: str) -> str:
    # A spreadsheet runs what begins like a formula (OWASP, "CSV injection"); members choose their nicknames.
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _written(rows: list[tuple[object, ...]]) -> str:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return lines.getvalue()
