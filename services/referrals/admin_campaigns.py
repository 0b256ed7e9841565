"""Coupon campaigns as admins run them: terms and stock, made, changed and closed."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, Field, ValidationError, model_validator
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, StaleVersion, problems
from kit.http import require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.patch import Patch
from kit.shapes import CleanStr, Count, Instant, Matching, Out, StrictIn
from kit.wording import Wrong
from services.referrals.models import Campaign, ReferralRule

routes = router(prefix="/v1/admin/coupon-campaigns", tags=["admin coupons"])

Reader = Annotated[Caller, admin_with("coupons:read")]
Editor = Annotated[Caller, admin_with("coupons:write")]

Title = Annotated[CleanStr, Field(min_length=1, max_length=200)]
Code = Annotated[CleanStr, Field(min_length=3, max_length=64), Matching(r"^[A-Za-z0-9_-]+$")]
PlanCode = Annotated[CleanStr, Field(min_length=1, max_length=64)]
Number = Annotated[int, Field(strict=True, ge=1, le=2**53)]
Each = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Days = Annotated[int, Field(strict=True, ge=1, le=3650)]
TIERS: Final = "potential|beginner|enthusiast|expert|instructor"
Audience = Annotated[
    CleanStr,
    Field(max_length=100),
    Matching(rf"^(everyone|new_members|tier:({TIERS})|label:.+|channel:[a-z0-9_-]+)$"),
]
MAX_PERCENT: Final = 100
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _plausible(instant: datetime) -> datetime:
    # Near year 1 and 9999 an instant can be stored that no other time zone can show.
    if not EARLIEST <= instant <= LATEST:
        raise Wrong("must be between the years 2000 and 2200", "应在 2000 年到 2200 年之间")
    return instant


When = Annotated[Instant, AfterValidator(_plausible)]


class CampaignNotFound(NotFound):
    """There is no such coupon campaign."""

    zh = "没有这个优惠券活动。"


class CampaignCodeTaken(Conflict):
    """Another campaign has this code; choose another one."""

    zh = "这个兑换码已被其他活动使用，请换一个。"


class TotalBelowClaimed(Conflict):
    """More coupons were given out already than this total; choose a higher one."""

    zh = "已发出的数量超过了这个总量，请设置得更高。"


class CampaignInUse(Conflict):
    """A referral rule pays with this campaign, so it cannot be deleted; make a new rule first, then let it end."""

    zh = "邀请规则正在使用这个活动，不能删除；请先发布新规则，再让它自然结束。"


class CampaignIn(StrictIn):
    """A campaign's terms; `value` is percent or fen, a coupon lasts `valid_days` from its claim, else to `ends_at`."""

    title: Title
    code: Code | None = None
    kind: Literal["percent", "amount"]
    value: Number
    min_amount: Count = 0
    plan_codes: Annotated[list[PlanCode], Field(max_length=50)] = Field(default_factory=list)
    total: Number
    per_member: Each = 1
    starts_at: When = Field(default_factory=clock.now)
    ends_at: When | None = None
    valid_days: Days | None = None
    audience: Audience = "everyone"
    claimable: bool = Field(default=True, strict=True)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.kind == "percent" and self.value > MAX_PERCENT:
            raise Wrong("value: a percentage is at most 100", "value：百分比不超过 100")
        if self.ends_at is None and self.valid_days is None:
            raise Wrong("ends_at: either ends_at or valid_days is needed", "ends_at 和 valid_days 至少要有一个")
        if self.ends_at is not None and self.ends_at <= self.starts_at:
            raise Wrong("ends_at: must be after starts_at", "ends_at 应晚于 starts_at")
        return self


class CampaignPatch(Patch):
    """Terms to change; coupons given already keep theirs."""

    nullable = frozenset({"code", "ends_at", "valid_days"})

    title: Title | None = None
    code: Code | None = None
    kind: Literal["percent", "amount"] | None = None
    value: Number | None = None
    min_amount: Count | None = None
    plan_codes: Annotated[list[PlanCode], Field(max_length=50)] | None = None
    total: Number | None = None
    per_member: Each | None = None
    starts_at: When | None = None
    ends_at: When | None = None
    valid_days: Days | None = None
    audience: Audience | None = None
    claimable: bool | None = Field(default=None, strict=True)


class CampaignAdminOut(Out):
    """A campaign with everything an admin may see."""

    id: UUID
    title: str
    code: str | None
    kind: Literal["percent", "amount"]
    value: int
    min_amount: int
    plan_codes: list[str]
    total: int
    claimed: int
    per_member: int
    starts_at: Instant
    ends_at: Instant | None
    valid_days: int | None
    audience: str
    claimable: bool
    version: int
    created_at: Instant


async def campaign_of(campaign_id: UUID, session: SessionDep) -> Campaign:
    """The campaign, locked until the transaction ends, so that its version and stock cannot move under an edit."""
    found = select(Campaign).where(col(Campaign.id) == campaign_id, col(Campaign.deleted_at).is_(None))
    campaign = (await session.execute(found.with_for_update(key_share=True))).scalar_one_or_none()
    if campaign is None:
        raise CampaignNotFound
    return campaign


LockedCampaign = Annotated[Campaign, Depends(campaign_of, scope="function")]


@routes.get("")
async def list_campaigns_to_edit(_: Reader, session: SessionDep, page: PageDep) -> Page[CampaignAdminOut]:
    """All campaigns, the newest first."""
    rows, next_cursor = await keyset(
        session,
        select(Campaign).where(col(Campaign.deleted_at).is_(None)),
        page,
        (col(Campaign.created_at).desc(), col(Campaign.id).desc()),
    )
    return Page(items=[CampaignAdminOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@routes.post("", status_code=201, responses=problems(CampaignCodeTaken))
async def create_campaign(_: Editor, body: CampaignIn, session: SessionDep, response: Response) -> CampaignAdminOut:
    """Open a campaign."""
    campaign = Campaign(**_columns(body), created_at=clock.now())
    session.add(campaign)
    await _write(session)
    await audit.record(session, "campaign.created", campaign.id, after=campaign.model_dump())
    response.headers["ETag"] = version_tag(campaign.version)
    return CampaignAdminOut.model_validate(campaign)


@routes.get("/{campaign_id}", responses=problems(CampaignNotFound))
async def read_campaign_to_edit(
    _: Reader, campaign_id: UUID, session: SessionDep, response: Response
) -> CampaignAdminOut:
    """One campaign, with the ETag that an edit names."""
    found = await session.get(Campaign, campaign_id)
    if found is None or found.deleted_at is not None:
        raise CampaignNotFound
    response.headers["ETag"] = version_tag(found.version)
    return CampaignAdminOut.model_validate(found)


@routes.patch(
    "/{campaign_id}", responses=problems(CampaignNotFound, CampaignCodeTaken, TotalBelowClaimed, StaleVersion)
)
async def edit_campaign(
    _: Editor, body: CampaignPatch, campaign: LockedCampaign, session: SessionDep, request: Request, response: Response
) -> CampaignAdminOut:
    """Change a campaign's terms from now on."""
    require_version(request, campaign.version)
    held = {name: getattr(campaign, name) for name in CampaignIn.model_fields}
    try:
        merged = CampaignIn.model_validate(held | body.model_dump(exclude_unset=True))
    except ValidationError as failure:
        errors = failure.errors(include_input=False, include_url=False)
        raise RequestValidationError([error | {"loc": ("body", *error["loc"])} for error in errors]) from None
    if merged.total < campaign.claimed:
        raise TotalBelowClaimed
    before = campaign.model_dump()
    for name, value in _columns(merged).items():
        setattr(campaign, name, value)
    campaign.version += 1
    await _write(session)
    await audit.record(session, "campaign.changed", campaign.id, before=before, after=campaign.model_dump())
    response.headers["ETag"] = version_tag(campaign.version)
    return CampaignAdminOut.model_validate(campaign)


@routes.delete("/{campaign_id}", status_code=204, responses=problems(CampaignNotFound, CampaignInUse, StaleVersion))
async def delete_campaign(_: Editor, campaign: LockedCampaign, session: SessionDep, request: Request) -> None:
    """Close a campaign for good; coupons that members hold stay good."""
    require_version(request, campaign.version)
    rules = select(func.count()).where(
        (col(ReferralRule.newcomer_campaign_id) == campaign.id) | (col(ReferralRule.inviter_campaign_id) == campaign.id)
    )
    if (await session.execute(rules)).scalar_one():
        raise CampaignInUse
    await audit.record(session, "campaign.deleted", campaign.id, before=campaign.model_dump())
    campaign.deleted_at = clock.now()
    campaign.version += 1


def _columns(terms: CampaignIn) -> dict[str, Any]:
    return terms.model_dump() | {"code": terms.code.upper() if terms.code else None}


async def _write(session: AsyncSession) -> None:
    try:
        await session.flush()
    except IntegrityError as failure:
        if "campaign_code_key" in str(failure.orig):
            raise CampaignCodeTaken from None
        raise
