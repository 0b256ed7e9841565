"""What a member completed is kept as it was then: the lesson's length, the course's version."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add them; for completions of before, the lesson's present length."""
    op.add_column("completion", sa.Column("duration_s", sa.Integer))
    op.add_column("completion", sa.Column("course_version", sa.Integer))
    op.execute("UPDATE completion SET duration_s = lesson.duration_s FROM lesson WHERE lesson.id = lesson_id")
    op.create_index("completion_lesson", "completion", ["lesson_id", "member_id"])
    op.create_table(
        "course_completion",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("course_id", sa.Uuid, sa.ForeignKey("course.id"), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("lessons", sa.Integer, nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("course_completion_course", "course_completion", ["course_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("course_completion")
    op.drop_index("completion_lesson", "completion")
    op.drop_column("completion", "course_version")
    op.drop_column("completion", "duration_s")
