"""Phones of members who left, as keyed hashes that lead to nobody."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "former_phone",
        sa.Column("phone_hash", sa.String, primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("former_phone_until_idx", "former_phone", ["until"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("former_phone")
