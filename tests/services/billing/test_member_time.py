"""Membership time in quotes: what is bought comes after what there is, anchored as the calendar rule says."""

from datetime import datetime, timedelta

import pytest

from contracts.calendar import Piece, Span, pack
from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from services.billing.member_time import span_of_purchase, span_without
from tests.services.billing.till import Till


def _pictures(pieces: list[Piece]) -> list[SegmentPicture]:
    spans = pack(pieces, clock.ZONE)
    return [
        SegmentPicture(
            id=piece.id,
            source="order",
            source_id=piece.id,
            plan_code="black-card-1m",
            months=piece.months,
            days=piece.days,
            starts_at=span.starts_at,
            ends_at=span.ends_at,
            benefits=(),
            added_at=piece.added_at,
        )
        for piece in pieces
        if (span := spans[piece.id]) is not None
    ]


def _at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00")


def _local(span: Span) -> list[str]:
    return [f"{moment.astimezone(clock.ZONE):%Y-%m-%d %H:%M}" for moment in span]


@pytest.mark.parametrize(
    ("start", "held", "bought", "ends"),
    [
        ("2026-01-31 10:00", [1, 1], 1, "2026-04-30 10:00"),
        ("2027-11-30 09:30", [3], 1, "2028-03-30 09:30"),
        ("2028-02-29 08:00", [12], 12, "2030-02-28 08:00"),
        ("2026-12-31 23:59", [1, 1], 12, "2028-02-29 23:59"),
    ],
)
def test_a_purchase_continues_the_run_of_months(start: str, held: list[int], bought: int, ends: str) -> None:
    begin = _at(start)
    pieces = [Piece(id=new_id(), added_at=begin, months=months) for months in held]
    span = span_of_purchase(_pictures(pieces), bought, begin + timedelta(days=3))
    assert _local(span)[1] == ends


def test_a_purchase_after_a_refunded_segment_starts_a_new_run() -> None:
    begin = _at("2026-01-31 10:00")
    cut = Piece(id=new_id(), added_at=begin, months=1, revoked_at=begin + timedelta(days=5))
    kept = Piece(id=new_id(), added_at=begin + timedelta(hours=1), months=1)
    told = _pictures([cut, kept])
    now = begin + timedelta(days=6)
    expected = pack([cut, kept, purchase := Piece(id=new_id(), added_at=now, months=1)], clock.ZONE)[purchase.id]
    assert span_of_purchase(told, 1, now) == expected
    assert span_of_purchase([one for one in told if one.id == kept.id], 1, now) == expected


def test_a_purchase_follows_time_that_a_won_dispute_made_longer() -> None:
    begin = _at("2026-01-31 10:00")
    paused = (begin + timedelta(days=10), begin + timedelta(days=30))
    first = Piece(id=new_id(), added_at=begin, months=1, pauses=(paused,))
    second = Piece(id=new_id(), added_at=begin + timedelta(days=31), months=1)
    now = begin + timedelta(days=32)
    purchase = Piece(id=new_id(), added_at=now, months=1)
    for pieces in ([first], [first, second]):
        expected = pack([*pieces, purchase], clock.ZONE)[purchase.id]
        assert span_of_purchase(_pictures(pieces), 1, now) == expected


def test_without_any_time_a_purchase_starts_now() -> None:
    assert _local(span_of_purchase([], 1, _at("2026-05-31 12:00"))) == ["2026-05-31 12:00", "2026-06-30 12:00"]


def test_what_is_left_after_a_refund_moves_forward() -> None:
    begin = _at("2026-03-01 09:00")
    first, second = (Piece(id=new_id(), added_at=begin + timedelta(hours=n), months=1) for n in range(2))
    told, now = _pictures([first, second]), begin + timedelta(days=10)
    after = span_without(told, first.id, now)
    assert after is not None
    assert _local(after) == ["2026-03-11 09:00", "2026-04-11 09:00"]
    assert span_without(told[:1], first.id, now) is None
    assert span_without(told, new_id(), now) == Span(told[0].starts_at, told[1].ends_at)


async def test_a_preview_shows_what_would_be_bought_from_the_newest_picture(till: Till) -> None:
    member, now = new_id(), clock.now()
    pieces = [
        Piece(id=new_id(), added_at=now, days=40),
        Piece(id=new_id(), added_at=now + timedelta(seconds=1), days=1),
    ]
    both = _pictures(pieces)
    newer = MembershipChanged(member_id=member, version=2, segments=tuple(both), access_until=both[-1].ends_at)
    older = MembershipChanged(member_id=member, version=1, segments=(both[0],), access_until=both[0].ends_at)
    await till.api.handle(newer, older, newer)
    preview = await till.client.post(
        "/v1/orders/preview", json={"plan_code": "black-card-1m"}, headers=till.api.member(member)
    )
    assert preview.status_code == 200, preview.text
    assert preview.json()["coupon"] is None
    starts_at = datetime.fromisoformat(preview.json()["membership_after"]["starts_at"])
    assert starts_at == both[-1].ends_at


async def test_a_preview_counts_what_was_paid_a_moment_ago(till: Till) -> None:
    member = new_id()
    order = await till.buy(member, plan_code="black-card-3m")
    preview = await till.client.post(
        "/v1/orders/preview", json={"plan_code": "black-card-1m"}, headers=till.api.member(member)
    )
    paid_at = datetime.fromisoformat(order["paid_at"])
    third, fourth = Piece(id=new_id(), added_at=paid_at, months=3), Piece(id=new_id(), added_at=clock.now(), months=1)
    expected = pack([third, fourth], clock.ZONE)[fourth.id]
    assert expected is not None
    assert [datetime.fromisoformat(at) for at in preview.json()["membership_after"].values()] == list(expected)
