"""Cards that the sandbox payment provider keeps, and what the payer's bank says to charging them."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"

EMPTY = {"mode": "'payment'", "setup_intent_data": "'{}'::jsonb", "next_charges": "'[]'::jsonb"}


def _add(table: str, name: str, kind: "sa.types.TypeEngine[Any]") -> None:
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default=sa.text(EMPTY[name])))
    op.alter_column(table, name, server_default=None)


def upgrade() -> None:
    """Make their tables, and room for them where they are used."""
    _add("sandbox_session", "mode", sa.String())
    _add("sandbox_session", "setup_intent_data", JSONB())
    _add("sandbox_payer", "next_charges", JSONB())
    for table, names in {
        "sandbox_session": ("customer_creation", "setup_id"),
        "sandbox_intent": ("method_id", "setup_future_usage", "cancellation_reason"),
        "sandbox_charge": ("method_id",),
    }.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.String))
    op.create_index("sandbox_intent_customer_id_idx", "sandbox_intent", ["customer_id"])
    op.create_table(
        "sandbox_method",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("customer_id", sa.String, index=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "sandbox_setup",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("customer_id", sa.String, index=True),
        sa.Column("method_id", sa.String),
        sa.Column("description", sa.String),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("last_setup_error", JSONB),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Forget the kept cards."""
    op.drop_table("sandbox_setup")
    op.drop_table("sandbox_method")
    op.drop_index("sandbox_intent_customer_id_idx", "sandbox_intent")
    op.drop_column("sandbox_charge", "method_id")
    for name in ("method_id", "setup_future_usage", "cancellation_reason"):
        op.drop_column("sandbox_intent", name)
    op.drop_column("sandbox_payer", "next_charges")
    for name in ("mode", "setup_intent_data", "customer_creation", "setup_id"):
        op.drop_column("sandbox_session", name)
