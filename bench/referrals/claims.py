"""Claims of one campaign a second, through the whole service, beside pgbench's conditional update of one hot row.

Run: `python -m bench.referrals.claims`. Both sides use the same durable PostgreSQL, with 64 clients.
"""

from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from bench.load import CLIENTS, SECONDS, known_bearers, pgbench, post_all, side_by_side
from kit.app import create_app
from kit.ids import new_id
from kit.migrations import upgrade
from onebox.stores import Postgres
from services.referrals.app import service
from services.referrals.settings import Settings

TOTAL = 10_000_000
HOT_ROW = """
BEGIN;
UPDATE hot SET claimed = claimed + 1 WHERE id = 1 AND claimed < total;
INSERT INTO taken (id, campaign) VALUES (gen_random_uuid(), 1);
COMMIT;
"""
OPEN = text(
    "INSERT INTO campaign SELECT :id, title, code, kind, value, min_amount, plan_codes, :total, 0, 1, "
    "starts_at, ends_at, valid_days, 'everyone', true, 1, created_at, NULL FROM campaign LIMIT 1"
)


async def ours(postgres: Postgres, _: Path) -> float:
    """Claims a second, each by another member."""
    await upgrade("referrals", postgres.url("claims"))
    settings = Settings(
        env="sandbox", database_url=postgres.url("claims"), background=False, log_level="error", coupon_keys=("k" * 32,)
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        campaign_id: UUID = new_id()
        async with app.state.runtime.db.session() as session, session.begin():
            await session.execute(OPEN, {"id": campaign_id, "total": TOTAL})
        given, took = await post_all(app, f"/v1/coupon-campaigns/{campaign_id}/claims", await known_bearers())
        async with app.state.runtime.db.session() as session:
            stored = (await session.execute(text("SELECT count(*) FROM coupon"))).scalar_one()
        if stored != given:
            raise RuntimeError(f"{given} were answered, {stored} are stored")
        return given / took


def floor(postgres: Postgres, folder: Path) -> float:
    """Transactions a second of the least that could be right."""
    postgres.query(
        "CREATE TABLE hot (id int PRIMARY KEY, claimed bigint NOT NULL, total bigint NOT NULL)",
        "INSERT INTO hot VALUES (1, 0, 10000000)",
        "CREATE TABLE taken (id uuid PRIMARY KEY, campaign int NOT NULL)",
        database="floor",
    )
    script = folder / "hot.sql"
    script.write_text(HOT_ROW)
    return pgbench(postgres, "floor", script)


if __name__ == "__main__":
    hot, claims = side_by_side("claims", floor, ours)
    print(f"{CLIENTS} clients, one campaign, {SECONDS:g} s, fsync on")
    print(f"pgbench, conditional update and insert   {hot:8.0f} /s")
    print(f"POST /v1/coupon-campaigns/{{id}}/claims    {claims:8.0f} /s   ({claims / hot:.2f} of it)")
