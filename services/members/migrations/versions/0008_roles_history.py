"""The history of roles."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add it; what was before nobody noted."""
    op.create_table(
        "role_change",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("before", ARRAY(sa.String), nullable=False),
        sa.Column("after", ARRAY(sa.String), nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("evidence", JSONB, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="role_change_pkey"),
    )
    op.create_index("role_change_member_id_idx", "role_change", ["member_id", "at", "id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("role_change")
