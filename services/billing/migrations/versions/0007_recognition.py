"""Revenue earned day by day, and books that their own role cannot change."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

MOMENT = sa.DateTime(timezone=True)

# What a paid order has still to earn begins where members said that its time lies; days that are over are earned on
# those days by the first run of the job. Entries that are there stay: refunds were booked against what is not earned.
SCHEDULES = """
INSERT INTO revenue_schedule (order_id, currency, amount, discount, earned, discount_earned, from_earned, from_discount,
                              holder_id, starts_at, ends_at, from_at, next_on)
SELECT o.id, o.currency, o.total - o.refunded_amount,
       CASE WHEN o.total > 0 AND o.refunded_amount = o.total THEN 0 ELSE o.discount END, 0, 0, 0, 0,
       t.member_id, t.starts_at, t.ends_at, t.starts_at,
       CASE WHEN o.total = 0 OR o.refunded_amount < o.total THEN (t.starts_at AT TIME ZONE 'Asia/Shanghai')::date END
FROM "order" o
LEFT JOIN LATERAL (
    SELECT m.member_id, (s ->> 'starts_at')::timestamptz AS starts_at, (s ->> 'ends_at')::timestamptz AS ends_at
    FROM member_time m CROSS JOIN jsonb_array_elements(m.segments) s
    WHERE m.member_id = o.member_id AND s ->> 'source' = 'order' AND s ->> 'source_id' = o.id::text
    LIMIT 1
) t ON true
WHERE o.paid_at IS NOT NULL
"""
BALANCED = """
CREATE OR REPLACE FUNCTION ledger_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entry uuid := CASE TG_TABLE_NAME WHEN 'ledger_line' THEN (to_jsonb(NEW) ->> 'entry_id') ELSE (to_jsonb(NEW) ->> 'id') END;
BEGIN
    {there}
    IF NOT EXISTS (SELECT FROM ledger_line WHERE entry_id = entry) THEN
        RAISE EXCEPTION 'ledger entry % has no lines', entry;
    END IF;
    IF EXISTS (
        SELECT FROM ledger_line WHERE entry_id = entry GROUP BY currency HAVING sum(debit) <> sum(credit)
    ) THEN
        RAISE EXCEPTION 'ledger entry % does not balance', entry;
    END IF;
    RETURN NULL;
END $$
"""
THERE = """
    IF NOT EXISTS (SELECT FROM ledger_entry WHERE id = entry) THEN
        RAISE EXCEPTION 'there is no ledger entry %', entry;
    END IF;
"""
BOOKS = "ledger_entry, ledger_line, revenue_recognition"


def upgrade() -> None:
    """Make the schedules, and take the rights to change the books from their owner."""
    _tables()
    op.execute(SCHEDULES)
    # A foreign key locks what it names, for which PostgreSQL wants the right to update it; the trigger looks instead.
    op.drop_constraint("ledger_line_entry_id_fkey", "ledger_line")
    op.execute(BALANCED.format(there=THERE))
    op.execute(
        "CREATE TRIGGER revenue_recognition_fixed BEFORE UPDATE OR DELETE OR TRUNCATE ON revenue_recognition "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()"
    )
    op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {BOOKS} FROM PUBLIC, CURRENT_USER")


def downgrade() -> None:
    """Back to what was paid stays deferred."""
    op.execute("GRANT UPDATE, DELETE, TRUNCATE ON ledger_entry, ledger_line TO CURRENT_USER")
    op.drop_table("revenue_recognition")
    op.drop_table("revenue_schedule")
    op.execute(BALANCED.format(there=""))
    op.create_foreign_key("ledger_line_entry_id_fkey", "ledger_line", "ledger_entry", ["entry_id"], ["id"])


def _tables() -> None:
    money = ("amount", "discount", "earned", "discount_earned", "from_earned", "from_discount")
    op.create_table(
        "revenue_schedule",
        sa.Column("order_id", sa.Uuid, sa.ForeignKey("order.id"), primary_key=True),
        sa.Column("currency", sa.String, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in money),
        sa.Column("holder_id", sa.Uuid, index=True),
        *(sa.Column(name, MOMENT) for name in ("starts_at", "ends_at", "from_at")),
        sa.Column("through_on", sa.Date),
        sa.Column("next_on", sa.Date),
        sa.CheckConstraint("earned BETWEEN 0 AND amount", name="earned"),
        sa.CheckConstraint("discount_earned BETWEEN 0 AND discount", name="discount_earned"),
        sa.CheckConstraint("(starts_at IS NULL) = (ends_at IS NULL) AND starts_at <= ends_at", name="span"),
        sa.CheckConstraint("next_on IS NULL OR from_at IS NOT NULL", name="next_on"),
        sa.CheckConstraint("next_on > through_on", name="forward"),
    )
    op.create_index(
        "revenue_schedule_due",
        "revenue_schedule",
        ["next_on", "order_id"],
        postgresql_where=sa.text("next_on IS NOT NULL"),
    )
    op.create_index(
        "revenue_schedule_unplanned",
        "revenue_schedule",
        ["order_id"],
        postgresql_where=sa.text("starts_at IS NULL AND (earned < amount OR discount_earned < discount)"),
    )
    op.create_table(
        "revenue_recognition",
        sa.Column("order_id", sa.Uuid, sa.ForeignKey("revenue_schedule.order_id"), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("discount", sa.BigInteger, nullable=False),
        sa.Column("entry_id", sa.Uuid, nullable=False),
        sa.CheckConstraint("amount >= 0 AND discount >= 0 AND amount + discount > 0", name="something"),
    )
    op.create_index("revenue_recognition_entry", "revenue_recognition", ["entry_id"])
