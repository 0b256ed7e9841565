"""Tiers and roles: how far somebody has come in baking, and what they lately do, with the rules in both languages."""

from typing import Literal

from fastapi import Request, Response

from kit.app import router
from kit.http import cacheable
from kit.shapes import Out

api = router(prefix="/v1/tiers", tags=["members"])

Tier = Literal["potential", "beginner", "enthusiast", "expert", "instructor"]
Role = Literal["organizer", "influencer", "seeker", "sharer", "challenger", "lurker"]


class Words(Out):
    """A text in Chinese and English."""

    zh: str
    en: str


class TierOut(Out):
    """A tier and its rule."""

    code: Tier
    name: Words
    rule: Words


class RoleOut(Out):
    """A role tag and its rule."""

    code: Role
    name: Words
    rule: Words


class TiersOut(Out):
    """The five tiers from first to last, and the six roles."""

    tiers: list[TierOut]
    roles: list[RoleOut]


TIERS = (
    TierOut(
        code="potential",
        name=Words(zh="潜在学员", en="Potential"),
        rule=Words(zh="还没有学完任何一节课。", en="No lesson finished yet."),
    ),
    TierOut(
        code="beginner",
        name=Words(zh="烘焙新手", en="Beginner"),
        rule=Words(zh="学完 1 节课，或有 1 个作品通过审核。", en="1 lesson finished or 1 approved work."),
    ),
    TierOut(
        code="enthusiast",
        name=Words(zh="烘焙爱好者", en="Enthusiast"),
        rule=Words(
            zh="在同一品类学完 10 节课，并有 3 个作品通过审核。",
            en="10 lessons finished and 3 approved works in one category.",
        ),
    ),
    TierOut(
        code="expert",
        name=Words(zh="烘焙达人", en="Expert"),
        rule=Words(
            zh="学完 30 节课，10 个作品通过审核，且有作品被推荐或进入比赛前 10 名。",
            en="30 lessons finished, 10 approved works, and a featured work or a top-10 place.",
        ),
    ),
    TierOut(
        code="instructor",
        name=Words(zh="烘焙讲师", en="Instructor"),
        rule=Words(zh="讲师证书经管理员审核通过。", en="A certificate approved by an admin."),
    ),
)

ROLES = (
    RoleOut(
        code="organizer",
        name=Words(zh="组织者", en="Organizer"),
        rule=Words(zh="由管理员任命。", en="Appointed by an admin."),
    ),
    RoleOut(
        code="influencer",
        name=Words(zh="意见领袖", en="Influencer"),
        rule=Words(
            zh="达人或讲师，近 28 天获得 20 个赞同或有作品被推荐。",
            en="An expert or instructor with 20 upvotes or a featured work in the last 28 days.",
        ),
    ),
    RoleOut(
        code="seeker",
        name=Words(zh="求知者", en="Seeker"),
        rule=Words(zh="近 28 天提出 3 个问题。", en="3 questions in the last 28 days."),
    ),
    RoleOut(
        code="sharer",
        name=Words(zh="分享者", en="Sharer"),
        rule=Words(zh="近 28 天发布 3 个作品或评论。", en="3 works or comments in the last 28 days."),
    ),
    RoleOut(
        code="challenger",
        name=Words(zh="挑战者", en="Challenger"),
        rule=Words(zh="近 28 天有 2 次举报被采纳。", en="2 upheld reports in the last 28 days."),
    ),
    RoleOut(
        code="lurker",
        name=Words(zh="潜水者", en="Lurker"),
        rule=Words(zh="近 28 天来过，但没有发布内容。", en="Present in the last 28 days, produced nothing."),
    ),
)

_ANSWER = TiersOut(tiers=list(TIERS), roles=list(ROLES)).model_dump_json().encode()


@api.get("", response_model=TiersOut)
async def read_tiers(request: Request) -> Response:
    """The five baking tiers and the six role tags with their rules."""
    return cacheable(request, _ANSWER, max_age_s=3600)
