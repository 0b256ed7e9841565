"""Casting votes: one statement judges, places and counts a batch, exactly, however many processes write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kit import clock
from kit.db import fetch
from kit.errors import Conflict, Forbidden, NotFound, Problem, Unavailable
from services.showcase.cards import born_at
from services.showcase.contests import ContestClosed
from services.showcase.entries import EntryNotFound
from services.showcase.signals import TREE, sign


class AlreadyVoted(Conflict):
    """You have voted for this work today; a new day brings new votes."""

    zh = "今天已经给这件作品投过票了，明天可以再投。"


class VoteLimitReached(Conflict):
    """You have used all your votes in this contest for today; a new day brings new ones."""

    zh = "今天在这个比赛里的票数已经用完，明天可以再投。"


class OwnEntry(Forbidden):
    """You cannot vote for your own work."""

    zh = "不能给自己的作品投票。"


class AccountTooNew(Forbidden):
    """Your account is too new to vote in this contest: it counts accounts made before a set moment."""

    zh = "账号注册得太晚，不能在这个比赛里投票：只有在指定时间之前注册的账号可以投。"


class VoteNotFound(NotFound):
    """You have no vote for this work that could be taken back."""

    zh = "你没有给这件作品投过票，没有可以收回的票。"


class VotesBusy(Unavailable):
    """Your votes are being counted in several places at the same moment; this one was not. Try again in a second."""

    zh = "你的投票正在多处同时处理，这一票没有计入，请过一秒再试。"


ROUNDS: Final = 20
"""Each round after the first means that another process wrote votes of the same members in between."""

REFUSALS: Final[dict[str, type[Problem]]] = {
    cls.code: cls for cls in (EntryNotFound, ContestClosed, OwnEntry, AccountTooNew, AlreadyVoted, VoteLimitReached)
}


@dataclass(frozen=True, slots=True)
class Ballot:
    """A member votes for an entry, from an address and a device, of which only digests are known here."""

    entry_id: UUID
    member_id: UUID
    address: bytes | None = None
    device: bytes | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an entry, and the votes of a member, are after a vote; `entry_votes` is None while totals are hidden.

    `votes` and `changes` are the tally's, for the copy of it that the leaderboard is read from.
    """

    entry_votes: int | None
    votes_left_today: int
    contest_id: UUID
    votes: int
    changes: int


# `held` waits for whoever is settling or moving the end of these contests, and then sees what they wrote. The rest of
# the statement sees the moment before that wait; a vote another process has written since then collides on a unique
# key, gets neither a row nor a refusal, and is asked for again by a statement that sees it.
# Rows are written in the order of members and then tallies in that of entries, so that processes never wait in a ring.
_CAST = f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(CAST($1 AS uuid[]), CAST($2 AS uuid[]), CAST($3 AS timestamptz[]),
        CAST($4 AS bytea[]), CAST($5 AS bytea[]))
        WITH ORDINALITY AS a(entry_id, member_id, born_at, address, device, turn)
), held AS MATERIALIZED (
    SELECT * FROM contest
    WHERE id IN (SELECT contest_id FROM entry WHERE id = ANY(CAST($1 AS uuid[]))) ORDER BY id FOR SHARE
), judged AS MATERIALIZED (
    SELECT a.entry_id, a.member_id, a.turn, c.id AS contest_id, c.votes_per_day, c.hide_totals, today.slots,
        greatest(0, extract(epoch FROM CAST($6 AS timestamptz) - coalesce(m.registered_at, a.born_at)) / 3600)
            AS account_hours,
        {sign("a.address")} AS address, {sign("coalesce(m.device, a.device)")} AS device,
        {sign(TREE.format(member="a.member_id"))} AS tree,
        CASE
        WHEN e.status IS DISTINCT FROM 'approved' THEN 'entry_not_found'
        WHEN c.settled_at IS NOT NULL OR c.starts_at > $6 OR c.ends_at <= $6 THEN 'contest_closed'
        WHEN e.member_id = a.member_id THEN 'own_entry'
        WHEN coalesce(m.registered_at, a.born_at) >= c.accounts_before THEN 'account_too_new'
        WHEN a.entry_id = ANY(today.entries) THEN 'already_voted'
        WHEN row_number() OVER (PARTITION BY a.entry_id, a.member_id ORDER BY a.turn) > 1 THEN 'asked_again'
        END AS refusal
    FROM asked a
    LEFT JOIN entry e ON e.id = a.entry_id
    LEFT JOIN held c ON c.id = e.contest_id
    LEFT JOIN member_card m ON m.member_id = a.member_id
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(v.slot), '{{}}') AS slots, array_agg(v.entry_id) AS entries
        FROM vote v WHERE v.contest_id = c.id AND v.member_id = a.member_id AND v.day = $7
    ) today
), placed AS MATERIALIZED (
    SELECT j.*, free.slot
    FROM (
        SELECT *, row_number() OVER (PARTITION BY contest_id, member_id ORDER BY entry_id) AS place
        FROM judged WHERE refusal IS NULL
    ) j
    LEFT JOIN LATERAL (
        SELECT slot FROM generate_series(1, j.votes_per_day) s(slot) WHERE slot <> ALL(j.slots)
        ORDER BY slot OFFSET j.place - 1 LIMIT 1
    ) free ON true
), written AS (
    INSERT INTO vote (entry_id, member_id, day, contest_id, slot, cast_at, account_hours, address, device, tree)
    SELECT entry_id, member_id, $7, contest_id, slot, $6, CAST(floor(account_hours) AS int), address, device, tree
    FROM placed WHERE slot IS NOT NULL
    ORDER BY member_id, entry_id
    ON CONFLICT DO NOTHING
    RETURNING entry_id, member_id, contest_id
), counted AS (
    INSERT INTO tally (entry_id, votes) SELECT entry_id, count(*) FROM written GROUP BY entry_id ORDER BY entry_id
    ON CONFLICT (entry_id) DO UPDATE SET votes = tally.votes + excluded.votes, changes = tally.changes + 1
    RETURNING entry_id, votes, changes
)
SELECT
    CASE
    WHEN j.refusal = 'asked_again' AND EXISTS (
        SELECT FROM placed first
        WHERE first.entry_id = j.entry_id AND first.member_id = j.member_id AND first.slot IS NOT NULL
    ) THEN 'already_voted'
    WHEN j.refusal <> 'asked_again' THEN j.refusal
    WHEN p.slot IS NULL THEN 'vote_limit_reached'
    END AS refusal,
    w.entry_id IS NOT NULL AS is_written,
    CASE WHEN NOT j.hide_totals THEN c.votes END AS entry_votes, j.contest_id, c.votes, c.changes,
    j.votes_per_day - cardinality(j.slots) - coalesce(own.written, 0) AS votes_left
FROM judged j
LEFT JOIN placed p ON p.turn = j.turn
LEFT JOIN written w ON j.refusal IS NULL AND w.entry_id = j.entry_id AND w.member_id = j.member_id
LEFT JOIN counted c ON c.entry_id = j.entry_id
LEFT JOIN (
    SELECT contest_id, member_id, count(*) AS written FROM written GROUP BY contest_id, member_id
) own ON own.contest_id = j.contest_id AND own.member_id = j.member_id
ORDER BY j.turn
"""  # noqa: S608 - put together from parts of our own


async def cast(connection: AsyncConnection, ballots: Sequence[Ballot]) -> list[Standing | Problem]:
    """Write the votes that are allowed now, and answer every ballot in its place; committed unless in a transaction."""
    answers: list[Standing | Problem | None] = [None] * len(ballots)
    for _ in range(ROUNDS):
        waiting = [place for place, answer in enumerate(answers) if answer is None]
        if not waiting:
            break
        now = clock.now()
        try:
            rows = await fetch(
                connection,
                _CAST,
                [ballots[place].entry_id for place in waiting],
                [ballots[place].member_id for place in waiting],
                [born_at(ballots[place].member_id) for place in waiting],
                [ballots[place].address for place in waiting],
                [ballots[place].device for place in waiting],
                now,
                now.astimezone(clock.ZONE).date(),
            )
        except Exception:
            # What an earlier round wrote is committed, unless answers are kept beside it.
            if len(waiting) == len(ballots) or connection.in_transaction():
                raise
            break
        for place, row in zip(waiting, rows, strict=True):
            answers[place] = _answer(row)
    return [VotesBusy(retry_after=1) if answer is None else answer for answer in answers]


def _answer(row: Any) -> Standing | Problem | None:
    refusal, is_written, entry_votes, contest_id, votes, changes, votes_left = row
    if refusal is not None:
        return REFUSALS[refusal]()
    if not is_written:
        return None
    return Standing(entry_votes, max(0, votes_left), contest_id, votes, changes)
