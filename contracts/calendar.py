"""The membership calendar: pieces of paid time become spans, one after another, by the wall clock of a zone."""

from calendar import monthrange
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

SHORTEST_LOSS = timedelta(hours=1)
"""Less than this without access is not made up for by moving a calendar's ends."""


@dataclass(frozen=True)
class Piece:
    """One purchase, gift, code, grant or reward: exactly one of `months` and `days` is positive, all instants aware.

    `not_before` replaces `added_at` as the earliest start. It may lie before `added_at`: a renewal paid within grace
    starts at the old end. `pauses` are the half-open times for which the piece was taken out and then given back, as
    while a dispute lasted; `extra` is time added to what the calendar gives. ValueError for an impossible piece.
    """

    id: UUID
    added_at: datetime
    months: int = 0
    days: int = 0
    not_before: datetime | None = None
    revoked_at: datetime | None = None
    pauses: tuple[tuple[datetime, datetime], ...] = ()
    extra: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if min(self.months, self.days) != 0 or max(self.months, self.days) <= 0:
            raise ValueError("a piece has either months or days, and more than none")
        moments = (self.added_at, self.not_before, self.revoked_at, *chain.from_iterable(self.pauses))
        if any(moment and moment.utcoffset() is None for moment in moments):
            raise ValueError("a piece's instants are aware")


class Span(NamedTuple):
    """Half-open `[starts_at, ends_at)`, both aware and in UTC."""

    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class _Placed:
    """A piece on the line; `anchor` is where its run of months began, `months` the run's length with this piece."""

    piece: Piece
    span: Span
    anchor: datetime | None
    months: int


def pack(pieces: Iterable[Piece], zone: ZoneInfo) -> dict[UUID, Span | None]:
    """Where every piece lies; of a revoked one the part that was used, None if it never started.

    Depends on the set of pieces only. The history is replayed in time: an added piece goes to the end of the line; a
    revocation ends an active piece at that moment or takes a queued one out, and the queue behind it moves forward, but
    never before that moment; what has started or is over stays as it was. A piece that was paused lies as if it had not
    been, and is longer by the time in which its pause left nobody else's time to use: no second is lost, none is given
    twice. Losses under an hour are let go, so that a pause taken back at once leaves the calendar as it was. ValueError
    for two pieces with one id, OverflowError or ValueError past the year 9999.
    """
    return _replay(_made_up(pieces, zone), zone)


def made_up(pieces: Iterable[Piece], zone: ZoneInfo) -> dict[UUID, timedelta]:
    """By how much `pack` makes each paused piece longer: the time within its span that had no access."""
    known = {piece.id: piece for piece in pieces}
    return {piece.id: piece.extra - known[piece.id].extra for piece in _made_up(known.values(), zone) if piece.pauses}


def _made_up(pieces: Iterable[Piece], zone: ZoneInfo) -> Collection[Piece]:
    """The pieces, longer by what their pauses cost them."""
    known = set(pieces)
    by_id = {piece.id: _settled(piece) for piece in known}
    if len(by_id) != len(known):
        raise ValueError("two pieces have the same id")
    # What an earlier pause cost is known before a later one is judged.
    for end, start, piece_id in sorted((*pause[::-1], piece.id) for piece in by_id.values() for pause in piece.pauses):
        lost = _lost(by_id.values(), piece_id, start, end, zone)
        if lost >= SHORTEST_LOSS:
            by_id[piece_id] = replace(by_id[piece_id], extra=by_id[piece_id].extra + lost)
    return by_id.values()


def _replay(known: Iterable[Piece], zone: ZoneInfo) -> dict[UUID, Span | None]:
    """Where these pieces lie, their pauses left aside."""
    known = tuple(known)
    # At one instant additions come before revocations, so that a piece revoked as it is added is on the line by then.
    history = [(piece.added_at.astimezone(UTC), False, piece.id, piece) for piece in known]
    history += [
        (max(piece.revoked_at, piece.added_at).astimezone(UTC), True, piece.id, piece)
        for piece in known
        if piece.revoked_at
    ]
    line: list[_Placed] = []
    for at, revoked, _, piece in sorted(history, key=lambda entry: entry[:3]):
        if revoked:
            line = _take_out(line, piece, at, zone)
        else:
            line.append(_place(line, piece, _earliest(piece), zone))
    return {piece.id: None for piece in known} | {placed.piece.id: placed.span for placed in line}


def _settled(piece: Piece) -> Piece:
    """The piece with real pauses only, none before it was added and none after it was revoked, and all of it in UTC."""
    pauses: list[tuple[datetime, datetime]] = []
    revoked_at = piece.revoked_at
    for start, end in sorted(piece.pauses):
        begin = max(start, piece.added_at, pauses[-1][1] if pauses else start).astimezone(UTC)
        if begin >= end or (revoked_at and revoked_at <= begin):
            continue
        if revoked_at and revoked_at <= end:
            # Revoked while it was away: it never came back.
            revoked_at = begin
            continue
        pauses.append((begin, end.astimezone(UTC)))
    return replace(piece, pauses=tuple(pauses), revoked_at=revoked_at)


def _lost(known: Collection[Piece], paused: UUID, start: datetime, end: datetime, zone: ZoneInfo) -> timedelta:
    """How much of the pause `[start, end)` of this piece had no access at all, as it looked when the pause ended."""
    there = _replay((_as_known(piece, end) for piece in known if piece.added_at < end), zone)
    whole = _replay((_as_known(piece, end, but=piece.id == paused) for piece in known if piece.added_at < end), zone)[
        paused
    ]
    if whole is None or whole.ends_at <= start:
        # Its time was over before, or it was out for another reason.
        return timedelta(0)
    begin = max(start, whole.starts_at)
    used = (min(span.ends_at, end) - max(span.starts_at, begin) for span in there.values() if span)
    lost = end - begin - sum((time for time in used if time > timedelta(0)), timedelta(0))
    return max(lost, timedelta(0))


def _as_known(piece: Piece, at: datetime, *, but: bool = False) -> Piece:
    """The piece as it stood just before `at`: out if it was paused or revoked by then; `but` leaves out the last pause."""
    away = [start for start, end in piece.pauses if start < at <= end and not but]
    if piece.revoked_at and piece.revoked_at < at:
        away.append(piece.revoked_at)
    return replace(piece, revoked_at=min(away, default=None))


def _earliest(piece: Piece) -> datetime:
    return (piece.not_before or piece.added_at).astimezone(UTC)


def _place(line: Sequence[_Placed], piece: Piece, earliest: datetime, zone: ZoneInfo) -> _Placed:
    last = line[-1] if line else None
    starts_at = max(earliest, last.span.ends_at) if last else earliest
    if not piece.months:
        ends_at = _in_utc(starts_at.astimezone(zone) + timedelta(days=piece.days)) + piece.extra
        return _Placed(piece, Span(starts_at, ends_at), None, 0)
    if last and last.anchor and last.span.ends_at == starts_at:
        anchor, months = last.anchor, last.months + piece.months
    else:
        anchor, months = starts_at, piece.months
    ends_at = _in_utc(_months_later(anchor.astimezone(zone), months))
    if piece.extra:
        # Time that is not the calendar's leaves no anchor: what follows is a run of its own.
        return _Placed(piece, Span(starts_at, ends_at + piece.extra), None, 0)
    return _Placed(piece, Span(starts_at, ends_at), anchor, months)


def _take_out(line: list[_Placed], piece: Piece, at: datetime, zone: ZoneInfo) -> list[_Placed]:
    place = next(i for i, placed in enumerate(line) if placed.piece.id == piece.id)
    taken = line[place]
    if taken.span.ends_at <= at:
        return line
    kept = line[:place]
    if taken.span.starts_at < at:
        # The cut leaves no anchor: what follows is a run of its own.
        kept.append(replace(taken, span=Span(taken.span.starts_at, at), anchor=None))
    for queued in line[place + 1 :]:
        kept.append(_place(kept, queued.piece, max(at, _earliest(queued.piece)), zone))
    return kept


def _months_later(wall: datetime, months: int) -> datetime:
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    return wall.replace(year=year, month=month + 1, day=min(wall.day, monthrange(year, month + 1)[1]))


def _in_utc(wall: datetime) -> datetime:
    """The first instant with this wall time; a time that the zone's clocks skip counts as if they had not."""
    return wall.replace(fold=0).astimezone(UTC)
