"""The calendar rule: the table of the house, its corner cases, and what holds for every history."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.calendar import Piece, Span, pack

SHANGHAI = ZoneInfo("Asia/Shanghai")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def piece(number: int, added: str, **rest: object) -> Piece:
    return Piece(UUID(int=number), at(added), **rest)  # type: ignore[arg-type]


def walls(pieces: list[Piece]) -> list[tuple[str, str] | None]:
    spans = pack(pieces, SHANGHAI)
    return [
        (f"{span.starts_at.astimezone(SHANGHAI):%Y-%m-%d %H:%M}", f"{span.ends_at.astimezone(SHANGHAI):%Y-%m-%d %H:%M}")
        if (span := spans[piece.id])
        else None
        for piece in pieces
    ]


def test_the_answer_is_half_open_spans_in_utc() -> None:
    assert pack([piece(1, "2026-01-31 10:00", months=1)], SHANGHAI) == {
        UUID(int=1): Span(datetime(2026, 1, 31, 2, tzinfo=UTC), datetime(2026, 2, 28, 2, tzinfo=UTC))
    }


@pytest.mark.parametrize(
    ("start", "months", "ends"),
    [
        ("2026-01-31 10:00", [1, 1, 1], ["2026-02-28 10:00", "2026-03-31 10:00", "2026-04-30 10:00"]),
        ("2027-11-30 09:30", [3, 1], ["2028-02-29 09:30", "2028-03-30 09:30"]),
        ("2028-02-29 08:00", [12, 12], ["2029-02-28 08:00", "2030-02-28 08:00"]),
        ("2026-12-31 23:59", [1, 1, 12], ["2027-01-31 23:59", "2027-02-28 23:59", "2028-02-29 23:59"]),
    ],
)
def test_the_table_of_the_house(start: str, months: list[int], ends: list[str]) -> None:
    pieces = [piece(number, start, months=count) for number, count in enumerate(months, 1)]
    assert walls(pieces) == list(zip([start, *ends[:-1]], ends, strict=True))


def test_a_piece_bought_early_is_added_at_the_end() -> None:
    pieces = [piece(1, "2026-01-31 10:00", months=1), piece(2, "2026-02-10 08:00", months=1)]
    assert walls(pieces) == [("2026-01-31 10:00", "2026-02-28 10:00"), ("2026-02-28 10:00", "2026-03-31 10:00")]


def test_a_gap_starts_a_new_anchor() -> None:
    pieces = [piece(1, "2026-01-31 10:00", months=1), piece(2, "2026-03-01 12:00", months=1)]
    assert walls(pieces) == [("2026-01-31 10:00", "2026-02-28 10:00"), ("2026-03-01 12:00", "2026-04-01 12:00")]


def test_days_start_a_new_anchor_at_their_end() -> None:
    pieces = [
        piece(1, "2026-01-31 10:00", months=1),
        piece(2, "2026-02-01 00:00", days=7),
        piece(3, "2026-02-02 00:00", months=1),
    ]
    assert walls(pieces)[1:] == [("2026-02-28 10:00", "2026-03-07 10:00"), ("2026-03-07 10:00", "2026-04-07 10:00")]


def test_a_renewal_paid_within_grace_starts_at_the_old_end_with_the_old_anchor() -> None:
    pieces = [
        piece(1, "2026-01-31 10:00", months=1),
        piece(2, "2026-03-03 00:00", months=1, not_before=at("2026-02-28 10:00")),
    ]
    assert walls(pieces)[1] == ("2026-02-28 10:00", "2026-03-31 10:00")


def test_a_renewal_paid_within_grace_follows_what_was_bought_in_between() -> None:
    pieces = [
        piece(1, "2026-01-31 10:00", months=1),
        piece(2, "2026-03-02 00:00", months=1),
        piece(3, "2026-03-03 00:00", months=1, not_before=at("2026-02-28 10:00")),
    ]
    assert walls(pieces)[1:] == [("2026-03-02 00:00", "2026-04-02 00:00"), ("2026-04-02 00:00", "2026-05-02 00:00")]


def test_a_revoked_active_piece_ends_at_once_and_what_is_queued_moves_forward() -> None:
    pieces = [
        piece(1, "2026-01-31 10:00", months=1, revoked_at=at("2026-02-10 09:00")),
        piece(2, "2026-02-01 00:00", months=1),
        piece(3, "2026-02-01 00:00", months=1),
    ]
    assert walls(pieces) == [
        ("2026-01-31 10:00", "2026-02-10 09:00"),
        ("2026-02-10 09:00", "2026-03-10 09:00"),
        ("2026-03-10 09:00", "2026-04-10 09:00"),
    ]


def test_a_cut_starts_a_new_anchor_even_for_a_piece_added_at_that_moment() -> None:
    pieces = [
        piece(1, "2026-01-31 10:00", months=1, revoked_at=at("2026-02-28 09:00")),
        piece(2, "2026-02-28 09:00", months=1),
    ]
    assert walls(pieces)[1] == ("2026-02-28 09:00", "2026-03-28 09:00")


def test_a_revoked_queued_piece_vanishes_and_the_run_keeps_its_anchor() -> None:
    pieces = [
        piece(1, "2026-01-31 10:00", months=1),
        piece(2, "2026-01-31 11:00", months=1, revoked_at=at("2026-02-10 00:00")),
        piece(3, "2026-01-31 12:00", months=1),
    ]
    assert walls(pieces) == [
        ("2026-01-31 10:00", "2026-02-28 10:00"),
        None,
        ("2026-02-28 10:00", "2026-03-31 10:00"),
    ]


def test_revoking_a_consumed_piece_changes_nothing() -> None:
    kept = [piece(1, "2026-01-31 10:00", months=1), piece(2, "2026-01-31 11:00", months=1)]
    revoked = [piece(1, "2026-01-31 10:00", months=1, revoked_at=at("2026-02-28 10:00")), kept[1]]
    assert walls(revoked) == walls(kept)


def test_a_piece_revoked_before_it_began_was_never_used() -> None:
    at_once = piece(1, "2026-01-31 10:00", months=1, revoked_at=at("2026-01-31 10:00"))
    earlier = piece(2, "2026-01-31 10:00", months=1, revoked_at=at("2026-01-01 00:00"))
    later = piece(3, "2026-01-31 10:00", days=1, not_before=at("2026-02-01 00:00"), revoked_at=at("2026-01-31 11:00"))
    assert walls([at_once, earlier, later]) == [None, None, None]


def test_pieces_added_at_one_moment_are_packed_by_id() -> None:
    pieces = [piece(2, "2026-01-31 10:00", days=2), piece(1, "2026-01-31 10:00", days=1)]
    assert walls(pieces) == [("2026-02-01 10:00", "2026-02-03 10:00"), ("2026-01-31 10:00", "2026-02-01 10:00")]


def test_wall_time_holds_where_clocks_change() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    bought = Piece(UUID(int=1), datetime(2026, 2, 28, 2, 30, tzinfo=berlin), months=1)
    skipped = Piece(UUID(int=2), datetime(2026, 2, 28, 2, 30, tzinfo=berlin), days=1)
    assert pack([bought, skipped], berlin) == {
        UUID(int=1): Span(datetime(2026, 2, 28, 1, 30, tzinfo=UTC), datetime(2026, 3, 28, 1, 30, tzinfo=UTC)),
        # 02:30 does not exist on 29 March: it counts as if the clocks had not been set forward.
        UUID(int=2): Span(datetime(2026, 3, 28, 1, 30, tzinfo=UTC), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
    }


@pytest.mark.parametrize(
    "lengths", [{}, {"months": 1, "days": 1}, {"months": -1}, {"days": -3}, {"months": 2, "days": -1}]
)
def test_an_impossible_length_is_refused(lengths: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="either months or days"):
        piece(1, "2026-01-31 10:00", **lengths)


def test_naive_instants_and_repeated_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        Piece(UUID(int=1), datetime(2026, 1, 1), months=1)  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="same id"):
        pack([piece(1, "2026-01-31 10:00", months=1), piece(1, "2026-01-31 10:00", months=2)], SHANGHAI)


HOURS = st.integers(0, 24 * 500)
START = datetime(2027, 10, 30, 15, 30, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn) -> list[Piece]:
    pieces = []
    for number in range(draw(st.integers(1, 7))):
        added = START + timedelta(hours=draw(HOURS))
        length: dict[str, Any] = draw(
            st.sampled_from([{"months": 1}, {"months": 3}, {"months": 12}, {"days": 1}, {"days": 7}])
        )
        grace = draw(st.none() | st.integers(0, 24 * 7))
        revoked = draw(st.none() | HOURS)
        pieces.append(
            Piece(
                UUID(int=number),
                added,
                **length,
                not_before=None if grace is None else added - timedelta(hours=grace),
                revoked_at=None if revoked is None else START + timedelta(hours=revoked),
            )
        )
    return pieces


@given(histories(), st.integers())
def test_the_order_of_arrival_changes_nothing(pieces: list[Piece], seed: int) -> None:
    shuffled = random.Random(seed).sample(pieces, len(pieces))
    assert pack(shuffled, SHANGHAI) == pack(pieces, SHANGHAI)


@given(histories())
def test_spans_never_overlap_and_are_never_empty(pieces: list[Piece]) -> None:
    spans = sorted(span for span in pack(pieces, SHANGHAI).values() if span)
    assert all(span.starts_at < span.ends_at for span in spans)
    assert all(one.ends_at <= other.starts_at for one, other in pairwise(spans))


@given(histories())
def test_no_paid_time_is_lost(pieces: list[Piece]) -> None:
    spans = pack(pieces, SHANGHAI)
    for piece in pieces:
        span = spans[piece.id]
        if piece.revoked_at:
            assert span is None or span.ends_at <= max(piece.revoked_at, piece.added_at) or not _was_cut(piece, span)
            continue
        assert span is not None
        if piece.days:
            assert span.ends_at - span.starts_at == timedelta(days=piece.days)
        else:
            # A month of a run anchored on a 31st may be any month's length, but no month is shorter than 28 days.
            days = (span.ends_at - span.starts_at).days
            assert days >= {1: 28, 3: 89, 12: 365}[piece.months]


def _was_cut(piece: Piece, span: Span) -> bool:
    whole = {1: 28, 3: 89, 12: 365}[piece.months] if piece.months else piece.days
    return span.ends_at - span.starts_at < timedelta(days=whole)


@given(histories())
def test_a_run_of_months_ends_at_its_anchor_plus_the_months_so_far(pieces: list[Piece]) -> None:
    spans = pack(pieces, SHANGHAI)
    cuts = {max(piece.revoked_at, piece.added_at) for piece in pieces if piece.revoked_at}
    line = sorted((span, piece) for piece in pieces if (span := spans[piece.id]))
    anchor, months = START, 0
    end: datetime | None = None
    for span, piece in line:
        if piece.days or span.ends_at in cuts:
            end = None
            continue
        if span.starts_at != end:
            anchor, months = span.starts_at.astimezone(SHANGHAI), 0
        months += piece.months
        wall, end = span.ends_at.astimezone(SHANGHAI), span.ends_at
        assert (wall.year - anchor.year) * 12 + wall.month - anchor.month == months
        assert wall.time() == anchor.time()
        assert wall.day == anchor.day or (wall.day < anchor.day and (wall + timedelta(days=1)).day == 1)


@given(histories(), HOURS)
def test_what_has_started_is_never_moved_by_what_happens_later(pieces: list[Piece], hours: int) -> None:
    now = START + timedelta(hours=hours)
    known = [
        replace(piece, revoked_at=piece.revoked_at if piece.revoked_at and piece.revoked_at <= now else None)
        for piece in pieces
        if piece.added_at <= now
    ]
    then, finally_ = pack(known, SHANGHAI), pack(pieces, SHANGHAI)
    for piece in known:
        before, after = then[piece.id], finally_[piece.id]
        if before and before.starts_at < now:
            assert after is not None
            assert after.starts_at == before.starts_at
            assert after.ends_at == before.ends_at or now < after.ends_at < before.ends_at


@given(histories())
def test_nothing_starts_before_it_was_allowed_to(pieces: list[Piece]) -> None:
    spans = pack(pieces, SHANGHAI)
    for piece in pieces:
        span = spans[piece.id]
        assert span is None or span.starts_at >= (piece.not_before or piece.added_at)


@given(histories())
def test_a_consumed_piece_may_be_revoked_without_any_change(pieces: list[Piece]) -> None:
    spans = pack(pieces, SHANGHAI)
    for piece in pieces:
        span = spans[piece.id]
        if span and not piece.revoked_at:
            late = replace(piece, revoked_at=max(span.ends_at, piece.added_at))
            assert pack([late if other is piece else other for other in pieces], SHANGHAI) == spans
