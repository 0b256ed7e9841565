"""Old touches: those that brought nobody are counted by channel and day after 400 days, and forgotten."""

from datetime import date, timedelta
from typing import Final

from sqlalchemy import BigInteger, Column, text
from sqlmodel import Field

from kit import clock
from kit.app import Due, Runtime
from services.referrals.models import Model

KEPT: Final = timedelta(days=400)
"""A rule's window is a year at most: what is older binds nobody."""
AT_ONCE = 5000


class TouchDay(Model, table=True):
    """How many links of a channel were opened on a business day, of those touches that are forgotten."""

    __tablename__ = "touch_day"

    channel_code: str = Field(primary_key=True, foreign_key="channel.code")
    day: date = Field(primary_key=True)
    touches: int = Field(sa_column=Column(BigInteger, nullable=False))


_FORGET: Final = text("""
WITH old AS (
    SELECT id FROM touch WHERE newcomer_id IS NULL AND at < :before ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM touch USING old WHERE touch.id = old.id RETURNING touch.channel_code, touch.at, touch.at_registration
), counted AS (
    INSERT INTO touch_day (channel_code, day, touches)
    SELECT channel_code, (at AT TIME ZONE :zone)::date, count(*) FROM gone
    WHERE channel_code IS NOT NULL AND NOT at_registration GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (channel_code, day) DO UPDATE SET touches = touch_day.touches + excluded.touches
)
SELECT count(*) FROM gone
""")


async def forget_old(rt: Runtime) -> int:
    """Forget some thousands of touches that led to no registration, counted in the same statement; how many."""
    asked = {"before": clock.now() - KEPT, "most": AT_ONCE, "zone": clock.ZONE.key}
    async with rt.db.session() as session, session.begin():
        return int((await session.execute(_FORGET, asked)).scalar_one())


due = Due("forget old touches", forget_old, every_s=600.0, by_portions=True)
