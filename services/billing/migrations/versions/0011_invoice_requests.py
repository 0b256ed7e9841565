"""Invoice requests."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "invoice_request",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("order_id", sa.Uuid, sa.ForeignKey("order.id"), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("tax_id", sa.String),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("number", sa.String, unique=True),
        sa.Column("reason", sa.String),
        sa.Column("needs_red_letter", sa.Boolean, nullable=False),
        sa.Column("red_letter_number", sa.String, unique=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("resolved_at", MOMENT),
        sa.Column("resolved_by", sa.Uuid),
        sa.CheckConstraint("amount >= 0", name="amount"),
        sa.CheckConstraint("state <> 'issued' OR number IS NOT NULL", name="number"),
        sa.CheckConstraint("red_letter_number IS NULL OR NOT needs_red_letter", name="red_letter"),
    )
    op.create_index("invoice_request_order_id_idx", "invoice_request", ["order_id"])
    op.create_index("invoice_request_recent", "invoice_request", ["created_at", "id"])
    op.create_index(
        "invoice_request_live",
        "invoice_request",
        ["order_id"],
        unique=True,
        postgresql_where=sa.text("state = 'requested' OR (state = 'issued' AND red_letter_number IS NULL)"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("invoice_request")
