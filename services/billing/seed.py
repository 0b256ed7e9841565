"""The sandbox's plans: the three black cards."""

from kit.app import Runtime
from services.billing.admin_plans import PlanIn, add_plan

BENEFITS = ["member_lessons", "live_replay", "live_priority", "monthly_coupon", "double_points", "qa_priority"]

BLACK_CARDS = (
    ("black-card-1m", "黑卡月卡", 1, 1990, 2990),
    ("black-card-3m", "黑卡季卡", 3, 4900, 8970),
    ("black-card-12m", "黑卡年卡", 12, 18900, 35880),
)


async def seed(rt: Runtime) -> None:
    """Put the black cards on sale where there are none yet; an admin's changes stay."""
    async with rt.db.session() as session, session.begin():
        for code, name, months, amount, original_amount in BLACK_CARDS:
            plan = PlanIn.model_validate(
                {
                    "code": code,
                    "name": name,
                    "months": months,
                    "amount": amount,
                    "original_amount": original_amount,
                    "benefits": BENEFITS,
                }
            )
            await add_plan(session, plan)
