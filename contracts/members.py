"""What members tells: who registered, who changed, who is the same, whose membership runs when, and who has what points."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from kit.events import Event


class MemberRegistered(Event, type="members.member.registered"):
    """A person registered; hashes are keyed, so they compare but do not reveal."""

    member_id: UUID
    nickname: str
    registered_at: AwareDatetime
    invite_code: str | None = None
    channel: str | None = None
    visitor_id: str | None = None
    phone_hash: str | None = None
    address_prefix: str | None = None


class MemberChanged(Event, type="members.member.changed"):
    """What others show or judge of a member changed; the whole picture."""

    member_id: UUID
    nickname: str
    avatar_url: str | None = None
    tier: str
    labels: tuple[str, ...] = ()
    frozen: bool = False


class MemberErased(Event, type="members.member.erased"):
    """A member asked to be forgotten: anonymise what you hold, keep money records."""

    member_id: UUID


class MemberMerged(Event, type="members.member.merged"):
    """Two accounts turned out to be one person's: whatever is held of `merged_id` is `kept_id`'s from now on."""

    kept_id: UUID
    merged_id: UUID


class SegmentPicture(BaseModel):
    """One run of membership time as it is packed now; half-open `[starts_at, ends_at)`.

    `idle_s` are the seconds of it that had no access because a bank asked for the money, and lost.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID
    source: Literal["order", "gift", "redeem_code", "comp", "reward"]
    source_id: UUID
    plan_code: str
    months: int
    days: int
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    benefits: tuple[str, ...]
    added_at: AwareDatetime
    not_before: AwareDatetime | None = None
    idle_s: int = 0


class MembershipChanged(Event, type="members.membership.changed"):
    """The whole time ledger of a member; a listener ignores a version not above the one it holds."""

    member_id: UUID
    version: int
    segments: tuple[SegmentPicture, ...]
    access_until: AwareDatetime | None = None


class PointsChanged(Event, type="members.points.changed"):
    """How many points a member has; a listener ignores a version not above the one it holds, which only grows."""

    member_id: UUID
    version: int
    balance: int


class PointsAnswered(Event, type="members.points.answered"):
    """Whether points were taken for a request; `balance` is what is left, or what was too little."""

    request_id: UUID
    member_id: UUID
    taken: bool
    balance: int
