"""Finding members: by nickname, phone or id, tier, role, label and the state of their membership."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from sqlalchemy import ColumnElement, Select, Text, Uuid, any_, exists, func, literal, not_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from kit import clock
from kit.shapes import CleanStr
from kit.vault import Vault
from services.members.ledger import GRACE
from services.members.ledger_models import MembershipVersion, Segment
from services.members.membership import Status
from services.members.models import Identity, Member
from services.members.phones import read_phone
from services.members.tiers import Role, Tier

TRIGRAM = 3
NEWEST, COMMON = 2000, 4
"""What so many of the newest members have fills a page after some thousands; what fewer have may never."""
FEW = 1000
"""So many members are looked up one by one in less time than going through all of them takes."""

Condition = Callable[[Any], ColumnElement[bool]]
"""What members meet, said of a table or an alias of it."""


@dataclass(frozen=True)
class MemberFilter:
    """What a list of members is narrowed to; every filter given must be met."""

    q: str | None = None
    tier: Tier | None = None
    role: Role | None = None
    membership: Status | None = None
    label: str | None = None

    async def apply(self, session: AsyncSession, vault: Vault, statement: Select[Any]) -> Select[Any]:
        """The statement, which selects from `Member`, narrowed; erased members are never found."""
        statement = statement.where(col(Member.erased_at).is_(None))
        if self.q:
            statement = statement.where(await _matching(session, vault, self.q))
        if self.tier is not None:
            statement = statement.where(col(Member.tier) == self.tier)
        if (role := self.role) is not None:
            statement = statement.where(await _few_or(session, lambda who: col(who.roles).contains([role])))
        if (label := self.label) is not None:
            statement = statement.where(await _few_or(session, lambda who: col(who.labels).contains([label])))
        if self.membership is not None:
            statement = statement.where(_with_membership(self.membership))
        return statement


async def _filter(
    *,
    q: Annotated[CleanStr | None, Query(max_length=100, description="in the nickname, or the phone, or the id")] = None,
    tier: Tier | None = None,
    role: Role | None = None,
    membership: Status | None = None,
    label: Annotated[CleanStr | None, Query(max_length=40)] = None,
) -> MemberFilter:
    return MemberFilter(q, tier, role, membership, label)


MemberFilterDep = Annotated[MemberFilter, Depends(_filter)]


async def _matching(session: AsyncSession, vault: Vault, q: str) -> ColumnElement[bool]:
    """Members whose id or phone it is, or, if nobody's, whose nickname contains `q`."""
    ids: list[UUID] = []
    with suppress(ValueError):
        digest = vault.digest("phone", read_phone(q))
        theirs = select(col(Identity.member_id)).where(col(Identity.kind) == "phone", col(Identity.digest) == digest)
        # Looked up beforehand: a subquery beside another condition would keep PostgreSQL from using either's index.
        ids += (await session.execute(theirs)).scalars()
    with suppress(ValueError):
        ids.append(UUID(q))
    if ids:
        return col(Member.id).in_(ids)
    pattern = "".join(f"\\{letter}" if letter in "\\%_" else letter for letter in q)

    def named(who: Any) -> ColumnElement[bool]:
        # Chinese and digits have no capitals, and to look past capitals takes as long again.
        matches = col(who.nickname).like if q.lower() == q.upper() else col(who.nickname).ilike
        return matches(f"%{pattern}%")

    if len(q) < TRIGRAM:
        # Of one or two letters there is no trigram to look up; they have an index of their own.
        def short(who: Any) -> ColumnElement[bool]:
            return func.nickname_grams(col(who.nickname), type_=ARRAY(Text)).contains([q.lower()])

        return await _few_or(session, named, short)
    return named(Member)


async def _few_or(session: AsyncSession, many: Condition, indexed: Condition | None = None) -> ColumnElement[bool]:
    """The condition, or, where few members meet it, that they are one of those; `indexed` says the same by an index.

    What many meet is found at once by going through members from the newest on. PostgreSQL goes that way, too, for what
    next to nobody meets when its statistics have no number for it, and reads the whole table. So the newest are asked
    how common it is, and what is not is looked up.
    """
    order = (col(Member.created_at).desc(), col(Member.id).desc())
    newest = aliased(Member, select(Member).order_by(*order).limit(NEWEST).subquery())
    among = select(col(newest.id)).where(many(newest)).limit(COMMON)
    if len((await session.execute(among)).all()) < COMMON:
        rare = select(col(Member.id)).where((indexed or many)(Member)).limit(FEW + 1)
        ids = list((await session.execute(rare)).scalars())
        if len(ids) <= FEW:
            # One parameter: thousands of them take longer to read than the members.
            return col(Member.id) == any_(literal(ids, ARRAY(Uuid)))
    return many(Member)


def _with_membership(status: Status) -> ColumnElement[bool]:
    """Members whose membership has this status now, judged as `membership.judge` does."""
    now = clock.now()
    # EXISTS, also where it is denied: PostgreSQL joins it either way around, while a set that members must not be in
    # is read as a whole.
    theirs = col(Segment.member_id) == col(Member.id)
    started = exists().where(theirs, col(Segment.starts_at) <= now)
    active = exists().where(theirs, col(Segment.starts_at) <= now, col(Segment.ends_at) > now)
    # Grace follows the last paid instant, so whoever is in it is not active.
    grace_until = col(MembershipVersion.grace_until)
    grace = exists().where(
        col(MembershipVersion.member_id) == col(Member.id), grace_until > now, grace_until <= now + GRACE
    )
    expired = started & not_(active) & not_(grace)
    return {"active": active, "grace": grace, "expired": expired, "none": not_(started)}[status]
