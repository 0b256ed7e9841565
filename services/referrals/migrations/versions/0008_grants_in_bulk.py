"""Grants in bulk: files of members who are given a coupon each."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "grant_batch",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("campaign_id", sa.Uuid, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("file_name", sa.String, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("granted", sa.Integer, nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.Column("requested_by", sa.Uuid, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.UniqueConstraint("campaign_id", "digest", name="grant_batch_campaign_digest_key"),
        sa.CheckConstraint("granted >= 0 AND refused >= 0 AND granted + refused <= rows", name="counts"),
    )
    op.create_index("grant_batch_campaign_id_idx", "grant_batch", ["campaign_id", "created_at", "id"])
    op.create_index(
        "grant_batch_unfinished_idx",
        "grant_batch",
        ["created_at", "id"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "grant_row",
        sa.Column("batch_id", sa.Uuid, sa.ForeignKey("grant_batch.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("note", sa.String),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("code", sa.String),
        sa.Column("coupon_id", sa.Uuid, sa.ForeignKey("coupon.id")),
        sa.CheckConstraint("status IN ('waiting', 'granted', 'refused')", name="status"),
    )
    op.create_index("grant_row_member_id_idx", "grant_row", ["member_id"])
    op.create_index("grant_row_status_idx", "grant_row", ["batch_id", "status", "number"])


def downgrade() -> None:
    """Drop them."""
    for table in ("grant_row", "grant_batch"):
        op.drop_table(table)
