"""The gallery: the approved works of a contest, new, best or shuffled."""

import secrets
from typing import Any, Literal
from uuid import UUID

from fastapi import Response
from sqlalchemy import BigInteger, String, cast, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import router
from kit.auth import OptionalMemberDep
from kit.db import SessionDep
from kit.errors import problems
from kit.http import json_response
from kit.page import InvalidCursor, Page, PageDep, PageParams, decode_cursor, encode_cursor, keyset
from services.showcase.contests import ContestNotFound, totals_hidden
from services.showcase.entries import PRIVATE, EntryOut, shown, with_votes
from services.showcase.models import Contest, Entry, Tally
from services.showcase.uploads import AddressDep

api = router(prefix="/v1/contests/{contest_id}/entries", tags=["entries"])


@api.get("", response_model=Page[EntryOut], responses=problems(ContestNotFound, InvalidCursor))
async def list_entries(
    contest_id: UUID,
    caller: OptionalMemberDep,
    session: SessionDep,
    page: PageDep,
    address: AddressDep,
    sort: Literal["new", "top", "random"] = "new",
) -> Response:
    """The works on show; `random` gives each viewer an order of their own, so that nobody is always last."""
    contest = await session.get(Contest, contest_id)
    if contest is None:
        raise ContestNotFound
    if sort == "random":
        rows, next_cursor = await _shuffled(session, contest_id, page, str(caller.id) if caller else None)
    elif sort == "top" and not totals_hidden(contest):
        votes = func.coalesce(col(Tally.votes), 0).label("votes")
        rows, next_cursor = await keyset(session, _on_show(contest_id), page, (votes.desc(), col(Entry.id).asc()))
    else:
        rows, next_cursor = await keyset(session, _on_show(contest_id), page, (col(Entry.id).desc(),))
    return json_response({"items": await shown(session, rows, address), "next_cursor": next_cursor}, headers=PRIVATE)


def _on_show(contest_id: UUID) -> Any:
    return with_votes().where(col(Entry.contest_id) == contest_id, col(Entry.status) == "approved")


async def _shuffled(
    session: AsyncSession, contest_id: UUID, page: PageParams, viewer: str | None
) -> tuple[list[Any], str | None]:
    """One page in the order of a hash of seed and entry; the cursor carries the seed to the next page."""
    after: int | None = None
    if page.cursor:
        seed, after = decode_cursor(page.cursor, [str, int])
    else:
        seed = viewer or secrets.token_urlsafe(9)
    place = func.hashtextextended(func.concat(seed, cast(col(Entry.id), String)), cast(0, BigInteger)).label("place")
    found = _on_show(contest_id).add_columns(place)
    if after is not None:
        found = found.where(place > after)
    rows = list((await session.execute(found.order_by(place).limit(page.limit + 1))).all())
    if len(rows) <= page.limit:
        return rows, None
    rows = rows[: page.limit]
    return rows, encode_cursor([seed, rows[-1].place])
