"""The balance at the provider, and at the sandbox's."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "provider_balance",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("booked_until", MOMENT, nullable=False),
        sa.Column("next_at", MOMENT, nullable=False),
    )
    op.create_table(
        "sandbox_payout",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_table(
        "sandbox_balance_move",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("category", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("fee", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("payout_id", sa.String),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_index("sandbox_balance_move_once", "sandbox_balance_move", ["source", "category"], unique=True)
    op.create_index(
        "sandbox_balance_move_unpaid",
        "sandbox_balance_move",
        ["created_at"],
        postgresql_where=sa.text("payout_id IS NULL"),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("sandbox_balance_move", "sandbox_payout", "provider_balance"):
        op.drop_table(table)
