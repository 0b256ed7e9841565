"""Featured works."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "feature",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("entry_id", sa.Uuid, sa.ForeignKey("entry.id"), nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("published", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("published_at", INSTANT),
    )
    op.create_index("feature_shown_idx", "feature", ["published_at", "id"], postgresql_where=sa.text("published"))
    op.create_index("feature_entry_id_idx", "feature", ["entry_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("feature")
