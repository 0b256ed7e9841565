"""Reconciliations, and indexes for the figures of a day."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"

MOMENT = sa.DateTime(timezone=True)
INDEXES = {
    "order_paid": ("order", "paid_at", "paid_at IS NOT NULL"),
    "order_renews": ("order", "renews_from", "renews_from IS NOT NULL"),
    "refund_created": ("refund", "created_at", None),
    "refund_settled": ("refund", "settled_at", "settled_at IS NOT NULL"),
}


def upgrade() -> None:
    """Make the tables and the indexes."""
    op.create_table(
        "reconciliation",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("requested_by", sa.Uuid),
        sa.Column("payments", sa.Integer, nullable=False),
        sa.Column("refunds", sa.Integer, nullable=False),
        sa.Column("error", sa.String),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="finished_at"),
    )
    op.create_index(
        "reconciliation_daily", "reconciliation", ["day"], unique=True, postgresql_where=sa.text("requested_by IS NULL")
    )
    op.create_index("reconciliation_recent", "reconciliation", ["started_at", "id"])
    op.create_index(
        "reconciliation_due", "reconciliation", ["next_attempt_at"], postgresql_where=sa.text("status = 'running'")
    )
    op.create_table(
        "reconciliation_difference",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("reconciliation_id", sa.Uuid, sa.ForeignKey("reconciliation.id"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("source_id", sa.Uuid),
        sa.Column("provider_ref", sa.String),
        sa.Column("expected", JSONB),
        sa.Column("found", JSONB),
        sa.Column("currency", sa.String),
        sa.Column("repair", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("outcome", sa.String),
        sa.Column("repaired_at", MOMENT),
        sa.Column("repaired_by", sa.Uuid),
        sa.CheckConstraint("(status = 'open') = (repaired_at IS NULL)", name="repaired_at"),
    )
    op.create_index(
        "reconciliation_difference_run", "reconciliation_difference", ["reconciliation_id", "position"], unique=True
    )
    op.create_index(
        "reconciliation_difference_order",
        "reconciliation_difference",
        ["order_id"],
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    for name, (table, column, condition) in INDEXES.items():
        op.create_index(name, table, [column], postgresql_where=sa.text(condition) if condition else None)
    # Sums of accounts are read from the index alone.
    op.drop_index("ledger_line_account", "ledger_line")
    op.create_index(
        "ledger_line_account", "ledger_line", ["account", "currency"], postgresql_include=["debit", "credit"]
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ledger_line_account", "ledger_line")
    op.create_index("ledger_line_account", "ledger_line", ["account", "currency"])
    for name, (table, _, _) in INDEXES.items():
        op.drop_index(name, table)
    op.drop_table("reconciliation_difference")
    op.drop_table("reconciliation")
