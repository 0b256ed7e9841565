"""Rules of quarantine: which votes of a contest fall under a named rule, the newest beyond its limit."""

from collections import deque
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.shapes import StrictIn

Limit = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
MINUTE: Final = timedelta(minutes=1)
CHUNK: Final = 5000


class BurstParams(StrictIn):
    """So many votes for a work within any minute."""

    per_minute: Limit


class AgeParams(StrictIn):
    """So many hours an account was old when it voted."""

    min_hours: Annotated[int, Field(strict=True, ge=1, le=100_000)]


class TreeParams(StrictIn):
    """The share of a work's votes that members of one invite tree may have, 0.25 for a quarter."""

    max_share: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]


class PrefixParams(StrictIn):
    """So many members may vote for a work from one /24 (IPv6: /48)."""

    per_prefix: Limit


class DeviceParams(StrictIn):
    """So many members may vote for a work from one device."""

    per_device: Limit


class Rule(StrictIn):
    """A rule to run; a dry run only says what would happen."""

    dry_run: Annotated[bool, Field(strict=True)] = True


class Burst(Rule):
    """Votes that came too fast."""

    rule: Literal["burst"]
    params: BurstParams


class AccountAge(Rule):
    """Votes of accounts that were too young."""

    rule: Literal["account_age"]
    params: AgeParams


class InviteTree(Rule):
    """Votes of one invite tree beyond its share."""

    rule: Literal["invite_tree"]
    params: TreeParams


class Address(Rule):
    """Votes of too many members at one address."""

    rule: Literal["address"]
    params: PrefixParams


class Device(Rule):
    """Votes of too many members on one device."""

    rule: Literal["device"]
    params: DeviceParams


RuleIn = Annotated[Burst | AccountAge | InviteTree | Address | Device, Field(discriminator="rule")]
RuleName = Literal["burst", "account_age", "invite_tree", "address", "device"]

# A rule judges what counts and what it took out itself, so that a second run finds nothing more, and what another rule
# took out fills nobody's share. The newest are beyond the limit; for limits of members, those who came last. What counts
# has its place before what was taken out: where a vote that was kept is taken back, the next one may follow it.
_POOL: Final = """
CREATE TEMPORARY TABLE under_rule ON COMMIT DROP AS
WITH pool AS MATERIALIZED (
    SELECT entry_id, member_id, day, cast_at, account_hours, address, device, tree, quarantine FROM vote
    WHERE contest_id = '{contest}' AND (quarantine IS NULL OR quarantine = '{rule}')
), found AS ({found})
SELECT entry_id, member_id, day FROM found WHERE quarantine IS NULL
"""
_MEMBERS: Final = """
    SELECT pool.* FROM pool JOIN (
        SELECT entry_id, {sign}, member_id,
            row_number() OVER (
                PARTITION BY entry_id, {sign}
                ORDER BY min(cast_at) FILTER (WHERE quarantine IS NULL) NULLS LAST, min(cast_at), member_id
            ) AS place
        FROM pool WHERE {sign} IS NOT NULL GROUP BY entry_id, {sign}, member_id
    ) voter USING (entry_id, {sign}, member_id) WHERE voter.place > {limit}
"""
# Somebody nobody invited, and who invited nobody, is no tree.
_TREE: Final = """
    SELECT placed.* FROM (
        SELECT *, row_number() OVER (
                PARTITION BY entry_id, tree ORDER BY quarantine IS NOT NULL, cast_at, member_id, day
            ) AS place,
            count(*) OVER (PARTITION BY entry_id) AS votes
        FROM pool
    ) placed
    JOIN (SELECT entry_id, tree FROM pool GROUP BY entry_id, tree HAVING count(DISTINCT member_id) > 1) grown
        USING (entry_id, tree)
    WHERE placed.place > greatest(1, floor({share} * placed.votes))
"""
_BUSY: Final = text("""
WITH pool AS MATERIALIZED (
    SELECT entry_id, member_id, day, cast_at FROM vote WHERE contest_id = :contest AND quarantine IS NULL
), busy AS (
    SELECT DISTINCT entry_id FROM (
        SELECT entry_id, cast_at - lag(cast_at, :limit) OVER (PARTITION BY entry_id ORDER BY cast_at) AS span FROM pool
    ) spans WHERE span < interval '1 minute'
)
SELECT pool.* FROM pool JOIN busy USING (entry_id) ORDER BY entry_id, cast_at, member_id, day
""")
_EMPTY: Final = text("CREATE TEMPORARY TABLE under_rule (entry_id uuid, member_id uuid, day date) ON COMMIT DROP")
_FILL: Final = text("""
INSERT INTO under_rule
SELECT * FROM unnest(CAST(:entries AS uuid[]), CAST(:members AS uuid[]), CAST(:days AS date[]))
""")


async def find_votes(session: AsyncSession, contest_id: UUID, rule: Any) -> None:
    """Name the counting votes that fall under this rule (a RuleIn) in `under_rule`, a table of this transaction alone."""
    params = rule.params
    if isinstance(rule, Burst):
        await _find_burst(session, contest_id, params.per_minute)
        return
    if isinstance(rule, AccountAge):
        found = f"SELECT * FROM pool WHERE account_hours < {params.min_hours:d}"  # noqa: S608 - a number
    elif isinstance(rule, InviteTree):
        found = _TREE.format(share=f"{Decimal(repr(params.max_share)):f}")
    elif isinstance(rule, Address):
        found = _MEMBERS.format(sign="address", limit=params.per_prefix)
    else:
        found = _MEMBERS.format(sign="device", limit=params.per_device)
    # PostgreSQL takes no parameters here; the id, the name and the numbers were read as such.
    await session.execute(text(_POOL.format(contest=contest_id, rule=rule.rule, found=found)))


async def _find_burst(session: AsyncSession, contest_id: UUID, per_minute: int) -> None:
    await session.execute(_EMPTY)
    stream = await session.stream(_BUSY, {"contest": contest_id, "limit": per_minute})
    found: list[Any] = []
    burst = BurstJudge(per_minute)
    async for rows in stream.partitions(CHUNK):
        found += [vote for vote in rows if burst.is_excess(vote.entry_id, vote.cast_at)]
    if found:
        columns = {"entries": "entry_id", "members": "member_id", "days": "day"}
        await session.execute(_FILL, {name: [getattr(vote, of) for vote in found] for name, of in columns.items()})


class BurstJudge:
    """Tells which votes are too many, given each work's in order of time: no minute holds more kept ones than the limit."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._entry: UUID | None = None
        self._kept: deque[datetime] = deque()

    def is_excess(self, entry_id: UUID, cast_at: datetime) -> bool:
        """Whether this vote came within a minute of so many that are kept."""
        if entry_id != self._entry:
            self._entry, self._kept = entry_id, deque(maxlen=self.per_minute)
        if len(self._kept) == self.per_minute and cast_at - self._kept[0] < MINUTE:
            return True
        self._kept.append(cast_at)
        return False
