"""The sandbox's contest: open from the first start, and any account may vote in it."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from kit import clock
from kit.app import Runtime
from services.showcase.admin_contests import ContestIn, add_contest
from services.showcase.models import Contest

CONTEST_ID: Final = UUID("01990d3f-6c00-7000-8000-00000000cafe")
DAYS: Final = 30

RULES: Final = (
    "晒出你亲手做的蛋糕，讲讲它的故事。每位会员每天有三票，不能投给自己；"
    "作品须为本人制作和拍摄。票数相同时，先比较投票人来自多少个不同的邀请圈，再比较达到票数的时间和提交时间。"
)


async def seed(rt: Runtime) -> None:
    """Open the contest, once."""
    async with rt.db.session() as session, session.begin():
        if await session.get(Contest, CONTEST_ID) is not None:
            return
        now = clock.now()
        contest = ContestIn.model_validate(
            {
                "title": "我的第一个蛋糕",
                "rules": RULES,
                "starts_at": now,
                "ends_at": now + timedelta(days=DAYS),
                "accounts_before": now + timedelta(days=DAYS),
                "prizes": [
                    {
                        "from": 1,
                        "to": 1,
                        "title": "一等奖：黑卡三十天",
                        "reward": {"kind": "membership_days", "value": 30},
                    },
                    {
                        "from": 2,
                        "to": 3,
                        "title": "二等奖：黑卡七天",
                        "reward": {"kind": "membership_days", "value": 7},
                    },
                    {"from": 4, "to": 10, "title": "三等奖：一百积分", "reward": {"kind": "points", "value": 100}},
                ],
            }
        )
        await add_contest(session, contest, CONTEST_ID)
