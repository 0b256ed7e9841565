"""Instructors, series, attachments, and how many are satisfied."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def _instant(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    """Create the tables, and count the good scores of before."""
    op.create_table(
        "instructor",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("member_id", sa.Uuid),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("bio", sa.String, nullable=False),
        sa.Column("avatar_url", sa.String),
        _instant("verified_at", nullable=True),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("updated_at"),
        _instant("deleted_at", nullable=True),
    )
    op.create_index("instructor_shown", "instructor", ["name", "id"], postgresql_where=sa.text("deleted_at IS NULL"))
    op.create_index("instructor_member", "instructor", ["member_id"])
    op.add_column("course", sa.Column("instructor_id", sa.Uuid, sa.ForeignKey("instructor.id")))
    op.create_index(
        "course_instructor", "course", ["instructor_id"], postgresql_where=sa.text("instructor_id IS NOT NULL")
    )
    op.add_column("course", sa.Column("rating_positive", sa.Integer, nullable=False, server_default="0"))
    op.execute("""
        UPDATE course SET rating_positive = counted.positive FROM (
            SELECT course_id, count(*) AS positive FROM rating JOIN lesson ON lesson.id = lesson_id
            WHERE score >= 4 GROUP BY course_id
        ) AS counted WHERE counted.course_id = course.id
    """)
    op.create_table(
        "series",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("published", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("updated_at"),
        _instant("deleted_at", nullable=True),
    )
    op.create_table(
        "series_course",
        sa.Column("series_id", sa.Uuid, sa.ForeignKey("series.id"), primary_key=True),
        sa.Column("course_id", sa.Uuid, sa.ForeignKey("course.id"), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_index("series_course_of", "series_course", ["course_id"])
    op.create_table(
        "attachment",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("lesson.id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        _instant("created_at"),
        _instant("deleted_at", nullable=True),
    )
    op.create_index("attachment_lesson", "attachment", ["lesson_id", "id"])
    op.create_index(
        "attachment_discarded", "attachment", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL")
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("attachment", "series_course", "series"):
        op.drop_table(table)
    op.drop_index("course_instructor", "course")
    op.drop_column("course", "rating_positive")
    op.drop_column("course", "instructor_id")
    op.drop_table("instructor")
