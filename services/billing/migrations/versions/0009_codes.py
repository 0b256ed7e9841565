"""Redeem codes, of batches and of gifts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0009"
down_revision = "0008"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "code_batch",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("plan_code", sa.String, nullable=False),
        sa.Column("months", sa.Integer, nullable=False),
        sa.Column("benefits", ARRAY(sa.String), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("seed", sa.LargeBinary),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("downloaded_at", MOMENT),
        sa.Column("voided_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="code_batch_pkey"),
        sa.ForeignKeyConstraint(["plan_code"], ["plan.code"], name="code_batch_plan_code_fkey"),
        sa.CheckConstraint("count > 0 AND months > 0", name=op.f("code_batch_count_check")),
        sa.CheckConstraint("(seed IS NULL) = (downloaded_at IS NOT NULL)", name=op.f("code_batch_seed_check")),
    )
    op.create_index("code_batch_recent", "code_batch", ["created_at", "id"])
    op.create_table(
        "redeem_code",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("code_hash", sa.LargeBinary, nullable=False),
        sa.Column("batch_id", sa.Uuid),
        sa.Column("order_id", sa.Uuid),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("member_id", sa.Uuid),
        sa.Column("segment_id", sa.Uuid),
        sa.Column("first_time", sa.Boolean),
        sa.Column("redeemed_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="redeem_code_pkey"),
        sa.UniqueConstraint("code_hash", name="redeem_code_code_hash_key"),
        sa.UniqueConstraint("order_id", name="redeem_code_order_id_key"),
        sa.UniqueConstraint("segment_id", name="redeem_code_segment_id_key"),
        sa.ForeignKeyConstraint(["batch_id"], ["code_batch.id"], name="redeem_code_batch_id_fkey"),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name="redeem_code_order_id_fkey"),
        sa.CheckConstraint("(batch_id IS NULL) <> (order_id IS NULL)", name=op.f("redeem_code_source_check")),
        sa.CheckConstraint(
            "(status = 'redeemed') = (member_id IS NOT NULL) AND (status = 'redeemed') = (redeemed_at IS NOT NULL) "
            "AND (status = 'redeemed') = (segment_id IS NOT NULL)",
            name=op.f("redeem_code_redeemed_check"),
        ),
    )
    op.create_index("redeem_code_batch", "redeem_code", ["batch_id", "status"])
    op.create_index("redeem_code_member", "redeem_code", ["member_id", "redeemed_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("redeem_code")
    op.drop_table("code_batch")
