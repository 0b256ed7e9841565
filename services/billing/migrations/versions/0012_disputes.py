"""Disputes, billing's own and those of the sandbox payment provider."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make their tables."""
    op.add_column("sandbox_charge", sa.Column("disputed", sa.Boolean, nullable=False, server_default=sa.false()))
    op.alter_column("sandbox_charge", "disputed", server_default=None)
    op.create_table(
        "sandbox_dispute",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("charge_id", sa.String, sa.ForeignKey("sandbox_charge.id"), nullable=False, index=True),
        sa.Column("intent_id", sa.String, nullable=False, index=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("fee", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "dispute",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("provider_ref", sa.String, nullable=False, unique=True),
        sa.Column("payment_ref", sa.String),
        sa.Column("order_id", sa.Uuid, sa.ForeignKey("order.id"), index=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("provider_status", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("withdrawn", sa.Boolean, nullable=False),
        sa.Column("fee", sa.BigInteger, nullable=False),
        sa.Column("fee_currency", sa.String, nullable=False),
        sa.Column("removes_time", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True)),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sa.Column("next_check_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("amount >= 0 AND fee >= 0", name="amount"),
    )
    op.create_index("dispute_recent", "dispute", ["created_at", "id"])
    op.create_index(
        "dispute_check", "dispute", ["next_check_at"], postgresql_where=sa.text("next_check_at IS NOT NULL")
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("dispute")
    op.drop_table("sandbox_dispute")
    op.drop_column("sandbox_charge", "disputed")
