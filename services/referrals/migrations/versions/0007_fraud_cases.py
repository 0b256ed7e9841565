"""Fraud cases, and rewards that wait for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

INSTANT = sa.DateTime(timezone=True)
DROP = "ALTER TABLE reward DROP CONSTRAINT reward_reward_status_check_check"
ADD = "ALTER TABLE reward ADD CONSTRAINT reward_reward_status_check_check CHECK (status IN ({words}))"
WORDS = "'granted', 'refused', 'revoked'"


def upgrade() -> None:
    """Create the tables, let the check know the word, and keep where a purchase came from."""
    op.create_table(
        "fraud_case",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("evidence", postgresql.JSONB, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("resolved_at", INSTANT),
        sa.Column("resolved_by", sa.Uuid),
        sa.Column("reason", sa.String),
        sa.CheckConstraint("status IN ('open', 'released', 'voided')", name="status"),
    )
    op.create_index(
        "fraud_case_open_key",
        "fraud_case",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index("fraud_case_subject_idx", "fraud_case", ["kind", "subject", "resolved_at"])
    op.create_index("fraud_case_status_idx", "fraud_case", ["status", "created_at", "id"])
    op.create_table(
        "fraud_case_member",
        sa.Column("case_id", sa.Uuid, sa.ForeignKey("fraud_case.id"), primary_key=True),
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("holds", sa.Boolean, nullable=False),
    )
    op.create_index("fraud_case_member_member_id_idx", "fraud_case_member", ["member_id"])
    op.create_table(
        "fraud_hold",
        sa.Column("case_id", sa.Uuid, sa.ForeignKey("fraud_case.id"), primary_key=True),
        sa.Column("reward_id", sa.Uuid, sa.ForeignKey("reward.id"), primary_key=True),
    )
    op.create_index("fraud_hold_reward_id_idx", "fraud_hold", ["reward_id"])
    op.execute(DROP)
    op.execute(ADD.format(words=f"{WORDS}, 'held'"))
    op.add_column("purchase", sa.Column("address_prefix", sa.String))


def downgrade() -> None:
    """Drop them; held rewards are refused ones then."""
    op.drop_column("purchase", "address_prefix")
    op.execute("UPDATE reward SET status = 'refused' WHERE status = 'held'")
    op.execute(DROP)
    op.execute(ADD.format(words=WORDS))
    for table in ("fraud_hold", "fraud_case_member", "fraud_case"):
        op.drop_table(table)
