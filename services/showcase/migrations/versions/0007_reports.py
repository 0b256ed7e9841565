"""Reports of works and comments."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "report",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("entry_id", sa.Uuid, sa.ForeignKey("entry.id"), nullable=False),
        sa.Column("comment_id", sa.Uuid),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("author_id", sa.Uuid, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("quote", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("decision", sa.String),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("decided_at", INSTANT),
        sa.CheckConstraint("status IN ('open', 'upheld', 'dismissed')", name="status"),
    )
    of_entry = sa.text("comment_id IS NULL")
    op.create_index("report_entry_key", "report", ["entry_id", "member_id"], unique=True, postgresql_where=of_entry)
    op.create_index("report_comment_key", "report", ["comment_id", "member_id"], unique=True)
    op.create_index("report_status_idx", "report", ["status", "id"])
    op.create_index("report_member_id_idx", "report", ["member_id"])
    op.create_index("report_author_id_idx", "report", ["author_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("report")
