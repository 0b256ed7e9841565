"""Notices, and the language that a member reads them in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add them."""
    op.add_column("member", sa.Column("language", sa.String, server_default="zh-CN", nullable=False))
    op.create_table(
        "notice",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("teller", sa.String, nullable=False),
        sa.Column("reference", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("language", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("wanted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("proof", JSONB),
        sa.PrimaryKeyConstraint("id", name="notice_pkey"),
        sa.UniqueConstraint("teller", "reference", name="notice_teller_reference_key"),
    )
    op.create_index("notice_member_id_idx", "notice", ["member_id", "wanted_at", "id"])
    op.create_index("notice_pending_idx", "notice", ["next_attempt_at"], postgresql_where=sa.text("status = 'pending'"))


def downgrade() -> None:
    """Drop them."""
    op.drop_table("notice")
    op.drop_column("member", "language")
