"""Works that members made from lessons."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "lesson_work",
        sa.Column("entry_id", sa.Uuid, primary_key=True),
        sa.Column("lesson_id", sa.Uuid),
        sa.Column("member_id", sa.Uuid),
        sa.Column("contest_id", sa.Uuid),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("thumbnail_url", sa.String),
        sa.Column("on_show", sa.Boolean, nullable=False),
        sa.Column("featured", sa.Boolean, nullable=False),
        sa.Column("rank", sa.Integer),
        sa.Column("changed_at", sa.DateTime(timezone=True)),
    )
    shown = sa.text("on_show")
    op.create_index("lesson_work_lesson_idx", "lesson_work", ["lesson_id", "entry_id"], postgresql_where=shown)
    op.create_index("lesson_work_member_idx", "lesson_work", ["member_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("lesson_work")
