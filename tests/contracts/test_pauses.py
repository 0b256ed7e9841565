"""Pauses in the calendar: what is taken away for a while and given back loses no second and gains none."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from contracts.calendar import SHORTEST_LOSS, Piece, Span, made_up, pack

SHANGHAI = ZoneInfo("Asia/Shanghai")
START = datetime(2027, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = st.integers(0, 24 * 90)


@st.composite
def pieces_of_days(draw: st.DrawFn) -> list[Piece]:
    """Day pieces, whose length no calendar changes, one of them paused once or twice."""
    pieces = [
        Piece(UUID(int=place), START + draw(HOURS) * HOUR, days=draw(st.integers(1, 40)))
        for place in range(1, draw(st.integers(1, 5)) + 1)
    ]
    paused = draw(st.integers(0, len(pieces) - 1))
    moments = sorted(draw(st.lists(HOURS, min_size=2, max_size=4, unique=True)))
    pauses = tuple((START + begin * HOUR, START + end * HOUR) for begin, end in list(pairwise(moments))[::2])
    pieces[paused] = replace(pieces[paused], pauses=pauses)
    return pieces


def known_at(pieces: list[Piece], now: datetime) -> dict[UUID, Span | None]:
    """What was the case just then, from what had happened."""
    then = []
    for piece in pieces:
        if piece.added_at > now:
            continue
        ended = tuple(pause for pause in piece.pauses if pause[1] <= now)
        begun = [start for start, end in piece.pauses if start <= now < end]
        then.append(replace(piece, pauses=ended, revoked_at=min(begun, default=None)))
    return pack(then, SHANGHAI)


@given(pieces_of_days())
def test_every_second_that_was_bought_is_had_in_the_end_and_none_twice(pieces: list[Piece]) -> None:
    facts = {piece.added_at for piece in pieces} | {
        moment for piece in pieces for pause in piece.pauses for moment in pause
    }
    # Between two facts, what was known at the first is what people had.
    had = timedelta(0)
    for now, then in pairwise([*sorted(facts), START + timedelta(days=3650)]):
        times = (min(span.ends_at, then) - max(span.starts_at, now) for span in known_at(pieces, now).values() if span)
        had += sum((time for time in times if time > timedelta(0)), timedelta(0))
    assert had == sum(piece.days for piece in pieces) * timedelta(days=1)


@given(pieces_of_days(), st.integers())
def test_spans_never_overlap_and_the_order_of_arrival_changes_nothing(pieces: list[Piece], seed: int) -> None:
    spans = pack(pieces, SHANGHAI)
    laid = sorted(span for span in spans.values() if span)
    assert all(one.ends_at <= other.starts_at for one, other in pairwise(laid))
    assert pack(random.Random(seed).sample(pieces, len(pieces)), SHANGHAI) == spans


def piece(number: int, days: int, **more: object) -> Piece:
    return Piece(UUID(int=number), START, **({"days": days} | more))  # type: ignore[arg-type]


def test_a_pause_shorter_than_an_hour_moves_nothing() -> None:
    plain = [piece(1, 0, months=1), piece(2, 0, months=1)]
    begin = START + timedelta(days=40)
    for lost, moved in ((SHORTEST_LOSS - timedelta(seconds=1), False), (SHORTEST_LOSS, True)):
        paused = [plain[0], replace(plain[1], pauses=((begin, begin + lost),))]
        assert (pack(paused, SHANGHAI) != pack(plain, SHANGHAI)) is moved


def test_what_a_pause_costs_is_what_the_piece_is_longer_by() -> None:
    day = timedelta(days=1)
    one, two = piece(1, 30, pauses=((START + 5 * day, START + 15 * day),)), piece(2, 7)
    # The other piece's seven days were used while the first was away; three days were nobody's.
    assert made_up([one, two], SHANGHAI) == {one.id: 3 * day}
    assert made_up([one], SHANGHAI) == {one.id: 10 * day}
    assert made_up([replace(one, extra=day)], SHANGHAI) == {one.id: 10 * day}
    assert pack([one], SHANGHAI)[one.id] == (START, START + 40 * day)


def test_a_pause_after_the_end_or_after_a_revocation_is_none() -> None:
    day = timedelta(days=1)
    over = piece(1, 5, pauses=((START + 6 * day, START + 60 * day),))
    assert pack([over], SHANGHAI) == pack([piece(1, 5)], SHANGHAI)
    revoked = piece(1, 5, revoked_at=START + 2 * day)
    for start, end in ((2, 4), (3, 4)):
        paused = replace(revoked, pauses=((START + start * day, START + end * day),))
        assert pack([paused], SHANGHAI) == pack([revoked], SHANGHAI)
    away = replace(revoked, pauses=((START + day, START + 3 * day),))
    assert pack([away], SHANGHAI)[revoked.id] == (START, START + day)


def test_what_follows_a_lengthened_run_begins_a_run_of_its_own() -> None:
    day = timedelta(days=1)
    first = Piece(UUID(int=1), datetime(2026, 1, 31, 2, tzinfo=UTC), months=1)
    second = Piece(UUID(int=2), datetime(2026, 4, 20, 2, tzinfo=UTC), months=1)
    begin = first.added_at + 10 * day
    spans = pack([replace(first, pauses=((begin, begin + 60 * day),)), second], SHANGHAI)
    assert spans[first.id] == (first.added_at, first.added_at + 88 * day)
    assert spans[second.id] == (datetime(2026, 4, 29, 2, tzinfo=UTC), datetime(2026, 5, 29, 2, tzinfo=UTC))
