"""Issuing coupons: one statement gives a batch of claimants what is left of their campaigns, and never one more."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.coupon import CouponClaims
from contracts.referrals import CouponIssued
from kit.db import fetch
from kit.errors import Conflict, NotFound, Problem
from kit.events import outbox_row
from kit.ids import new_id
from kit.trace import current_request_id, current_traceparent

NEWCOMER_DAYS: Final = 30
"""How long after registration somebody who never paid is a new member."""

CLOCK_SKEW: Final = timedelta(minutes=5)
"""Billing's machine may be behind ours; a coupon must be good the moment its owner sees it."""


class CouponUnknown(NotFound):
    """There is no coupon under this code or address; check it and try again."""

    zh = "没有这张优惠券，请核对后再试。"


class CouponNotStarted(Conflict):
    """This coupon cannot be claimed yet; come back when the campaign starts, at `starts_at`."""

    zh = "活动还没开始，请在 `starts_at` 的时间再来领取。"
    action = "retry_later"


class CouponEnded(Conflict):
    """This campaign is over; look at the campaigns that run now."""

    zh = "活动已经结束，可以看看正在进行的其他活动。"
    action = "see_campaigns"


class AudienceMismatch(Conflict):
    """This coupon is for other members than you: `audience` names who may claim it; look at the other campaigns."""

    zh = "这张优惠券面向特定的会员（见 `audience`），你暂时不在领取范围内，可以看看其他活动。"
    action = "see_campaigns"


class CouponExhausted(Conflict):
    """All coupons of this campaign are gone; look at the other campaigns."""

    zh = "优惠券已经领完了，可以看看正在进行的其他活动。"
    action = "see_campaigns"


class CouponAlreadyClaimed(Conflict):
    """You already have this coupon; it is in your list."""

    zh = "你已经领过这张优惠券，可以在“我的优惠券”里查看。"
    action = "see_coupons"


REFUSALS: Final[dict[str, type[Problem]]] = {
    cls.code: cls
    for cls in (
        CouponUnknown,
        CouponNotStarted,
        CouponEnded,
        AudienceMismatch,
        CouponExhausted,
        CouponAlreadyClaimed,
    )
}


@dataclass(frozen=True, slots=True)
class Want:
    """Somebody is to have a coupon; one that was `claimed` must be open to them, one that is given need not be."""

    campaign_id: UUID
    member_id: UUID
    at: datetime
    source: str = "claim"
    id: UUID = field(default_factory=new_id)
    request_id: str | None = field(default_factory=current_request_id)
    traceparent: str | None = field(default_factory=current_traceparent)


@dataclass(frozen=True, slots=True)
class Issued:
    """A coupon that was just written."""

    id: UUID
    campaign_id: UUID
    member_id: UUID
    title: str
    kind: str
    value: int
    min_amount: int
    plan_codes: tuple[str, ...]
    issued_at: datetime
    ends_at: datetime
    status: str = "issued"


def claims_of(coupon: Any) -> CouponClaims:
    """What a coupon's token says; of an Issued, a Coupon or a row with their columns."""
    return CouponClaims(
        id=coupon.id,
        member_id=coupon.member_id,
        campaign_id=coupon.campaign_id,
        title=coupon.title,
        kind=coupon.kind,
        value=coupon.value,
        min_amount=coupon.min_amount,
        plan_codes=tuple(coupon.plan_codes),
        starts_at=coupon.issued_at - CLOCK_SKEW,
        ends_at=coupon.ends_at,
    )


# `held` waits for other writers of the same campaigns and then sees what they left; the rest of the statement still sees
# the members' coupons as they were before the wait. A member counted too low there meets the unique key, gets no row
# and no refusal, and is asked for again: by then the lock is ours and the next statement sees everything.
_ISSUE = """
WITH wanted AS (
    SELECT * FROM unnest(CAST($1 AS uuid[]), CAST($2 AS uuid[]), CAST($4 AS uuid[]),
        CAST($5 AS timestamptz[]), CAST($6 AS text[]))
        WITH ORDINALITY AS w(id, campaign_id, member_id, at, source, place)
), held AS MATERIALIZED (
    SELECT * FROM campaign WHERE id = ANY(CAST($3 AS uuid[])) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE
), judged AS (
    SELECT w.*, had.n AS had, had.n + row_number() OVER same_member AS ordinal,
        CASE
            WHEN c.id IS NULL OR (w.source = 'claim' AND NOT c.claimable) THEN 'coupon_unknown'
            WHEN w.source = 'claim' AND w.at < c.starts_at THEN 'coupon_not_started'
            WHEN w.source = 'claim' AND w.at >= c.ends_at THEN 'coupon_ended'
            WHEN had.n >= c.per_member THEN 'coupon_already_claimed'
            WHEN w.source = 'claim' AND NOT CASE split_part(c.audience, ':', 1)
                WHEN 'everyone' THEN true
                WHEN 'new_members' THEN card.paid_at IS NULL AND (
                    card.registered_at IS NULL OR card.registered_at > w.at - make_interval(days => $7))
                    AND NOT EXISTS (SELECT FROM former_phone f WHERE f.phone_hash = card.phone_hash AND f.until > w.at)
                WHEN 'tier' THEN coalesce(card.tier, 'potential') = split_part(c.audience, ':', 2)
                WHEN 'label' THEN coalesce(substr(c.audience, 7) = ANY(card.labels), false)
                WHEN 'channel' THEN coalesce(origin.channel_code = split_part(c.audience, ':', 2), false)
                ELSE false END THEN 'audience_mismatch'
            WHEN c.claimed >= c.total THEN 'coupon_exhausted'
            WHEN had.n + row_number() OVER same_member > c.per_member THEN 'coupon_already_claimed'
        END AS refusal
    FROM wanted w
    LEFT JOIN held c ON c.id = w.campaign_id
    LEFT JOIN member_card card ON card.member_id = w.member_id
    LEFT JOIN attribution origin ON origin.member_id = w.member_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM coupon WHERE coupon.campaign_id = w.campaign_id AND coupon.member_id = w.member_id
    ) had
    WINDOW same_member AS (PARTITION BY w.campaign_id, w.member_id ORDER BY w.place)
), queued AS (
    SELECT *, row_number() OVER (PARTITION BY campaign_id ORDER BY place) AS turn FROM judged WHERE refusal IS NULL
), issued AS (
    INSERT INTO coupon (id, campaign_id, member_id, ordinal, source, title, kind, value, min_amount, plan_codes,
        issued_at, ends_at, state, state_at)
    SELECT q.id, q.campaign_id, q.member_id, q.ordinal, q.source, c.title, c.kind, c.value, c.min_amount, c.plan_codes,
        q.at, coalesce(q.at + make_interval(hours => 24 * c.valid_days), c.ends_at), 'issued', q.at
    FROM queued q JOIN held c ON c.id = q.campaign_id
    WHERE q.turn <= c.total - c.claimed
    ON CONFLICT (campaign_id, member_id, ordinal) DO NOTHING
    RETURNING *
), counted AS (
    UPDATE campaign SET claimed = campaign.claimed + given.n
    FROM (SELECT campaign_id, count(*) AS n FROM issued GROUP BY campaign_id) given
    WHERE campaign.id = given.campaign_id
)
SELECT j.place, coalesce(j.refusal, CASE WHEN q.turn > c.total - c.claimed THEN 'coupon_exhausted' END) AS refusal,
    CASE WHEN j.refusal = 'coupon_not_started' THEN c.starts_at END AS starts_at,
    CASE WHEN j.refusal = 'audience_mismatch' THEN c.audience END AS audience,
    i.id, i.campaign_id, i.member_id, i.title, i.kind, i.value, i.min_amount, i.plan_codes, i.issued_at, i.ends_at
FROM judged j
LEFT JOIN queued q ON q.place = j.place
LEFT JOIN held c ON c.id = j.campaign_id
LEFT JOIN issued i ON i.id = j.id
ORDER BY j.place
"""


async def issue(connection: AsyncConnection, wants: list[Want]) -> list[Issued | Problem]:
    """Write the coupons that can be had, tell of each, and answer every want in its place; the caller commits."""
    answers: dict[UUID, Issued | Problem] = {}
    open_wants = wants
    while open_wants:
        found = await fetch(
            connection,
            _ISSUE,
            [want.id for want in open_wants],
            [want.campaign_id for want in open_wants],
            sorted({want.campaign_id for want in open_wants}),
            [want.member_id for want in open_wants],
            [want.at for want in open_wants],
            [want.source for want in open_wants],
            NEWCOMER_DAYS,
        )
        for want, row in zip(open_wants, found, strict=True):
            if row["refusal"] is not None:
                answers[want.id] = _refusal(row)
            elif row["id"] is not None:
                columns = {name: row[name] for name in Issued.__slots__ if name != "status"}
                answers[want.id] = Issued(**columns | {"plan_codes": tuple(row["plan_codes"])})
        open_wants = [want for want in open_wants if want.id not in answers]
    await _tell(connection, [(want, coupon) for want in wants if isinstance(coupon := answers[want.id], Issued)])
    return [answers[want.id] for want in wants]


def _refusal(row: Any) -> Problem:
    told = {"starts_at": row["starts_at"], "audience": row["audience"]}
    return REFUSALS[row["refusal"]](extra={name: value for name, value in told.items() if value is not None})


# One writer speaks for many requests: each event names its own, which `emit` would take from the writer.
_TELL = text("""
WITH written AS (
    INSERT INTO outbox (event_id, type, at, body, request_id, traceparent)
    SELECT event_id, type, at, CAST(body AS jsonb), request_id, traceparent
    FROM unnest(CAST(:event_id AS uuid[]), CAST(:type AS text[]), CAST(:at AS timestamptz[]), CAST(:body AS text[]),
        CAST(:request_id AS text[]), CAST(:traceparent AS text[]))
        AS told(event_id, type, at, body, request_id, traceparent)
)
SELECT pg_notify('outbox', '')
""")


async def _tell(connection: AsyncConnection, issued: list[tuple[Want, Issued]]) -> None:
    if not issued:
        return
    rows = [
        outbox_row(_told(coupon)) | {"request_id": want.request_id, "traceparent": want.traceparent}
        for want, coupon in issued
    ]
    await connection.execute(_TELL, {column: [row[column] for row in rows] for column in rows[0]})


def _told(coupon: Issued) -> CouponIssued:
    return CouponIssued(
        coupon_id=coupon.id,
        member_id=coupon.member_id,
        campaign_id=coupon.campaign_id,
        title=coupon.title,
        ends_at=coupon.ends_at,
    )
