"""The membership calendar: pieces of paid time become spans, one after another, by the wall clock of a zone."""

from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Piece:
    """One purchase, gift, code, grant or reward: exactly one of `months` and `days` is positive, all instants aware.

    `not_before` replaces `added_at` as the earliest start. It may lie before `added_at`: a renewal paid within grace
    starts at the old end. ValueError for an impossible piece.
    """

    id: UUID
    added_at: datetime
    months: int = 0
    days: int = 0
    not_before: datetime | None = None
    revoked_at: datetime | None = None

    def __post_init__(self) -> None:
        if min(self.months, self.days) != 0 or max(self.months, self.days) <= 0:
            raise ValueError("a piece has either months or days, and more than none")
        if any(moment and moment.utcoffset() is None for moment in (self.added_at, self.not_before, self.revoked_at)):
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
    never before that moment; what has started or is over stays as it was. ValueError for two pieces with one id,
    OverflowError or ValueError past the year 9999.
    """
    known = set(pieces)
    if len({piece.id for piece in known}) != len(known):
        raise ValueError("two pieces have the same id")
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


def _earliest(piece: Piece) -> datetime:
    return (piece.not_before or piece.added_at).astimezone(UTC)


def _place(line: Sequence[_Placed], piece: Piece, earliest: datetime, zone: ZoneInfo) -> _Placed:
    last = line[-1] if line else None
    starts_at = max(earliest, last.span.ends_at) if last else earliest
    if not piece.months:
        ends_at = _in_utc(starts_at.astimezone(zone) + timedelta(days=piece.days))
        return _Placed(piece, Span(starts_at, ends_at), None, 0)
    if last and last.anchor and last.span.ends_at == starts_at:
        anchor, months = last.anchor, last.months + piece.months
    else:
        anchor, months = starts_at, piece.months
    ends_at = _in_utc(_months_later(anchor.astimezone(zone), months))
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
