"""Channels: the community's own media, and what each of them brought."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import Field
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from kit import audit, clock
from kit.app import Runtime, RuntimeDep, router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, StaleVersion, problems
from kit.http import json_response, require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Out, StrictIn
from services.referrals.models import Channel
from services.referrals.periods import BadPeriod, PeriodDep

routes = router(prefix="/v1/admin/channels", tags=["admin referrals"])

Reader = Annotated[Caller, admin_with("coupons:read")]
Editor = Annotated[Caller, admin_with("coupons:write")]

Code = Annotated[str, Field(min_length=2, max_length=64, pattern=r"^[a-z0-9_-]+$")]
Name = Annotated[CleanStr, Field(min_length=1, max_length=100)]


class ChannelNotFound(NotFound):
    """There is no such channel."""

    zh = "没有这个渠道。"


class ChannelExists(Conflict):
    """A channel with this code exists already, perhaps a retired one; choose another code."""

    zh = "已有相同代码的渠道（也可能已停用），请换一个代码。"


class ChannelIn(StrictIn):
    """A new channel."""

    code: Code
    name: Name


class ChannelPatch(StrictIn):
    """A channel's new name."""

    name: Name


class ChannelOut(Out):
    """A channel; `url` is its link, which opens a page that notes the touch."""

    code: str
    name: str
    url: str
    version: int
    created_at: Instant


class ChannelStats(Out):
    """What happened in the period to people who came by this channel; revenue in fen, net of refunds and of what banks took.

    A touch is a link that was opened; somebody who names the channel at registration alone is only a registration.
    """

    code: str
    touches: int
    registrations: int
    first_lessons: int
    payers: int
    revenue: int
    median_days_to_pay: float | None


class StatsOut(Out):
    """All channels' figures."""

    items: list[ChannelStats]


_STATS = text("""
WITH brought AS (
    SELECT a.channel_code, a.member_id, a.bound_at, card.lesson_at, card.paid_at
    FROM attribution a LEFT JOIN member_card card ON card.member_id = a.member_id WHERE a.channel_code IS NOT NULL
), people AS (
    SELECT channel_code,
        count(*) FILTER (WHERE bound_at >= :since AND bound_at < :until) AS registrations,
        count(*) FILTER (WHERE lesson_at >= :since AND lesson_at < :until) AS first_lessons,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM paid_at - bound_at) / 86400.0)
            FILTER (WHERE paid_at >= :since AND paid_at < :until) AS median_days
    FROM brought GROUP BY channel_code
), money AS (
    SELECT b.channel_code, count(DISTINCT p.member_id) AS payers,
        sum(p.total - p.refunded) FILTER (WHERE p.dispute IS DISTINCT FROM 'lost') AS revenue
    FROM purchase p JOIN brought b USING (member_id)
    WHERE p.paid_at >= :since AND p.paid_at < :until AND p.total > 0
    GROUP BY b.channel_code
), opened AS (
    SELECT channel_code, sum(touches)::bigint AS touches FROM (
        SELECT channel_code, count(*) AS touches FROM touch
        WHERE at >= :since AND at < :until AND NOT at_registration GROUP BY channel_code
        UNION ALL
        SELECT channel_code, touches FROM touch_day
        WHERE day >= (CAST(:since AS timestamptz) AT TIME ZONE :zone)::date
            AND day < (CAST(:until AS timestamptz) AT TIME ZONE :zone)::date
    ) counted GROUP BY channel_code
)
SELECT c.code, coalesce(o.touches, 0) AS touches, coalesce(p.registrations, 0) AS registrations,
    coalesce(p.first_lessons, 0) AS first_lessons, coalesce(m.payers, 0) AS payers,
    coalesce(m.revenue, 0)::bigint AS revenue, round(p.median_days::numeric, 2)::float8 AS median_days_to_pay
FROM channel c
LEFT JOIN opened o ON o.channel_code = c.code
LEFT JOIN people p ON p.channel_code = c.code
LEFT JOIN money m ON m.channel_code = c.code
ORDER BY c.code
""")


async def channel_of(code: str, session: SessionDep) -> Channel:
    """The channel, locked until the transaction ends."""
    found = select(Channel).where(col(Channel.code) == code, col(Channel.retired_at).is_(None)).with_for_update()
    channel = (await session.execute(found)).scalar_one_or_none()
    if channel is None:
        raise ChannelNotFound
    return channel


LockedChannel = Annotated[Channel, Depends(channel_of, scope="function")]


@routes.get("")
async def list_channels(_: Reader, session: SessionDep, page: PageDep, rt: RuntimeDep) -> Page[ChannelOut]:
    """The channels in use, by code."""
    found = select(Channel).where(col(Channel.retired_at).is_(None))
    rows, next_cursor = await keyset(session, found, page, (col(Channel.code),))
    return Page(items=[_shown(row, rt) for row in rows], next_cursor=next_cursor)


@routes.get("/stats", response_model=StatsOut, responses=problems(BadPeriod))
async def read_channel_stats(_: Reader, session: SessionDep, asked: PeriodDep) -> Response:
    """What each channel brought from the first day through the last, in the business zone."""
    period = {"since": asked.since, "until": asked.until, "zone": clock.ZONE.key}
    rows = (await session.execute(_STATS, period)).all()
    items: list[dict[str, Any]] = [dict(zip(row._fields, row, strict=True)) for row in rows]
    return json_response({"items": items}, headers={"Cache-Control": "private, no-store"})


@routes.post("", status_code=201, responses=problems(ChannelExists))
async def create_channel(
    _: Editor, body: ChannelIn, session: SessionDep, rt: RuntimeDep, response: Response
) -> ChannelOut:
    """Open a channel."""
    channel = Channel(code=body.code, name=body.name, created_at=clock.now())
    row = insert(Channel).values(channel.model_dump()).on_conflict_do_nothing()
    made = await session.execute(row.returning(col(Channel.code)))
    if made.scalar_one_or_none() is None:
        raise ChannelExists
    await audit.record(session, "channel.created", body.code, after={"name": body.name})
    response.headers["ETag"] = version_tag(1)
    return _shown(channel, rt)


@routes.patch("/{code}", responses=problems(ChannelNotFound, StaleVersion))
async def rename_channel(
    _: Editor,
    body: ChannelPatch,
    channel: LockedChannel,
    session: SessionDep,
    rt: RuntimeDep,
    request: Request,
    response: Response,
) -> ChannelOut:
    """Give a channel another name."""
    require_version(request, channel.version)
    await audit.record(
        session, "channel.changed", channel.code, before={"name": channel.name}, after={"name": body.name}
    )
    channel.name = body.name
    channel.version += 1
    response.headers["ETag"] = version_tag(channel.version)
    return _shown(channel, rt)


@routes.delete("/{code}", status_code=204, responses=problems(ChannelNotFound, StaleVersion))
async def retire_channel(_: Editor, channel: LockedChannel, session: SessionDep, request: Request) -> None:
    """Take a channel out of use; what it brought stays counted."""
    require_version(request, channel.version)
    await audit.record(session, "channel.retired", channel.code, before={"name": channel.name})
    channel.retired_at = clock.now()
    channel.version += 1


def _shown(channel: Channel, rt: Runtime) -> ChannelOut:
    return ChannelOut.model_validate({**channel.model_dump(), "url": rt.settings.channel_link(channel.code)})
