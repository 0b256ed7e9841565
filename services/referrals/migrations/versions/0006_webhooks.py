"""Partners' webhooks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("partner_id", sa.Uuid, sa.ForeignKey("partner.id"), nullable=False),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.String), nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("sealed_secret", sa.String, nullable=False),
        sa.Column("sealed_old_secret", sa.String),
        sa.Column("old_secret_until", INSTANT),
        sa.Column("failing_since", INSTANT),
        sa.Column("disabled_at", INSTANT),
        sa.Column("busy_until", INSTANT),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("status IN ('active', 'disabled')", name="status"),
    )
    op.create_index("webhook_endpoint_partner_id_idx", "webhook_endpoint", ["partner_id", "created_at", "id"])
    op.create_table(
        "webhook_message",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("partner_id", sa.Uuid, sa.ForeignKey("partner.id"), nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("reference", sa.Uuid, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.UniqueConstraint("type", "reference", name="webhook_message_type_reference_key"),
    )
    op.create_index("webhook_message_at_idx", "webhook_message", ["at"])
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("place", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("endpoint_id", sa.Uuid, sa.ForeignKey("webhook_endpoint.id", ondelete="CASCADE"), nullable=False),
        sa.Column("message_id", sa.Uuid, sa.ForeignKey("webhook_message.id"), nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", INSTANT),
        sa.Column("attempts", postgresql.JSONB, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("status IN ('pending', 'succeeded', 'failed')", name="status"),
        sa.UniqueConstraint("endpoint_id", "message_id", name="webhook_delivery_endpoint_message_key"),
    )
    op.create_index(
        "webhook_delivery_due_idx",
        "webhook_delivery",
        ["endpoint_id", "next_attempt_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("webhook_delivery_log_idx", "webhook_delivery", ["endpoint_id", "created_at", "id"])
    op.create_index("webhook_delivery_message_id_idx", "webhook_delivery", ["message_id"])


def downgrade() -> None:
    """Drop them."""
    for table in ("webhook_delivery", "webhook_message", "webhook_endpoint"):
        op.drop_table(table)
