"""The gallery: the approved works of a contest, new, best or shuffled."""

import secrets
from datetime import date, datetime, time, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import BigInteger, String, case, cast, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import Caller, OptionalMemberDep
from kit.db import SessionDep
from kit.errors import problems
from kit.http import json_response
from kit.page import InvalidCursor, Page, PageDep, PageParams, decode_cursor, encode_cursor, keyset
from services.showcase.contests import ContestNotFound, totals_hidden
from services.showcase.entries import PRIVATE, EntryOut, shown, with_votes
from services.showcase.models import Contest, Entry, Tally
from services.showcase.signals import LONGEST_VISITOR, VISITOR, VISITOR_HEADER, device_of
from services.showcase.uploads import AddressDep

api = router(prefix="/v1/contests/{contest_id}/entries", tags=["entries"])

FIRST_YEAR, LAST_YEAR = 2000, 2200
NEW_FOR: Final = timedelta(days=2)
"""Works shown since the beginning of the day before yesterday are new."""


@api.get(
    "", response_model=Page[EntryOut], responses=problems(ContestNotFound, InvalidCursor), openapi_extra=VISITOR_HEADER
)
async def list_entries(
    contest_id: UUID,
    caller: OptionalMemberDep,
    session: SessionDep,
    page: PageDep,
    address: AddressDep,
    request: Request,
    sort: Literal["new", "top", "random"] = "new",
) -> Response:
    """The works on show; `random` gives each viewer an order of their own, in which new works come earlier."""
    contest = await session.get(Contest, contest_id)
    if contest is None:
        raise ContestNotFound
    if sort == "random":
        rows, next_cursor = await _shuffled(session, contest_id, page, _viewer(caller, request))
    elif sort == "top" and not totals_hidden(contest):
        votes = func.coalesce(col(Tally.votes), 0).label("votes")
        rows, next_cursor = await keyset(session, _on_show(contest_id), page, (votes.desc(), col(Entry.id).asc()))
    else:
        rows, next_cursor = await keyset(session, _on_show(contest_id), page, (col(Entry.id).desc(),))
    return json_response({"items": await shown(session, rows, address), "next_cursor": next_cursor}, headers=PRIVATE)


def _viewer(caller: Caller | None, request: Request) -> str | None:
    """Who is looking, as far as that is known: the member, or the device that an app names."""
    visitor = request.headers.get(VISITOR)
    if caller is not None:
        return str(caller.id)
    return device_of(visitor).hex() if visitor and len(visitor) <= LONGEST_VISITOR else None


def _on_show(contest_id: UUID) -> Any:
    return with_votes().where(col(Entry.contest_id) == contest_id, col(Entry.status) == "approved")


async def _shuffled(
    session: AsyncSession, contest_id: UUID, page: PageParams, viewer: str | None
) -> tuple[list[Any], str | None]:
    """One page in an order by hashes of seed and work, the same for a viewer all day.

    Each work draws a place; one that is new draws twice and takes the better, as it had less time to be seen. The cursor
    carries seed and day to the next page.
    """
    after: int | None = None
    if page.cursor:
        seed, today, after = decode_cursor(page.cursor, [str, date, int])
        if not FIRST_YEAR <= today.year <= LAST_YEAR:
            raise InvalidCursor
    else:
        seed, today = viewer or secrets.token_urlsafe(9), clock.today()
    drawn = [_draw(seed, turn) for turn in range(2)]
    new_since = datetime.combine(today - NEW_FOR, time.min, clock.ZONE)
    is_new = col(Entry.approved_at) >= new_since
    place = case((is_new, func.least(*drawn)), else_=drawn[0]).label("place")
    found = _on_show(contest_id).add_columns(place)
    if after is not None:
        found = found.where(place > after)
    rows = list((await session.execute(found.order_by(place).limit(page.limit + 1))).all())
    if len(rows) <= page.limit:
        return rows, None
    rows = rows[: page.limit]
    return rows, encode_cursor([seed, today, rows[-1].place])


def _draw(seed: str, turn: int) -> Any:
    return func.hashtextextended(func.concat(seed, cast(col(Entry.id), String)), cast(turn, BigInteger))
