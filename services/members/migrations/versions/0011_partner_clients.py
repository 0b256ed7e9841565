"""The clients of partners."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "partner_client",
        sa.Column("partner_id", sa.Uuid, nullable=False),
        sa.Column("client_id", sa.String, nullable=False),
        sa.Column("secret_hash", sa.String, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("partner_id", name="partner_client_pkey"),
        sa.UniqueConstraint("client_id", name="partner_client_client_id_key"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("partner_client")
