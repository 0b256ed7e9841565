"""The first tables of courses."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import INT4MULTIRANGE, JSONB, TSTZMULTIRANGE

from kit.migrations import create_kit_tables_1, drop_kit_tables_1

revision = "0001"
down_revision = None

TABLES = (
    "enrolment",
    "live_lesson",
    "rating",
    "completion",
    "progress",
    "purchase",
    "access",
    "media_key",
    "lesson",
    "course",
)


def upgrade() -> None:
    """Create them."""
    create_kit_tables_1()
    _catalogue()
    _learning()
    _live()


def downgrade() -> None:
    """Drop them."""
    for table in TABLES:
        op.drop_table(table)
    drop_kit_tables_1()


def _instant(name: str, *, nullable: bool = False) -> "sa.Column[Any]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _catalogue() -> None:
    op.create_table(
        "course",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("category", sa.String, nullable=False),
        sa.Column("level", sa.String, nullable=False),
        sa.Column("access", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("published", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("rating_count", sa.Integer, nullable=False),
        sa.Column("rating_sum", sa.Integer, nullable=False),
        sa.Column("rating_negative", sa.Integer, nullable=False),
        sa.Column("rating_mean", sa.Float, nullable=False),
        _instant("created_at"),
        _instant("updated_at"),
        _instant("deleted_at", nullable=True),
        sa.CheckConstraint("level IN ('beginner', 'intermediate', 'advanced')", name="course_level_check"),
        sa.CheckConstraint("access IN ('free', 'member', 'paid')", name="course_access_check"),
        sa.CheckConstraint("(access = 'paid') = (amount IS NOT NULL) AND amount > 0", name="course_amount_check"),
        sa.CheckConstraint("rating_count >= rating_negative AND rating_negative >= 0", name="course_rating_check"),
    )
    op.create_index("course_title", "course", ["title"])
    op.create_index("course_shown", "course", ["id"], postgresql_where=sa.text("published AND deleted_at IS NULL"))
    op.create_table(
        "lesson",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("course_id", sa.Uuid, sa.ForeignKey("course.id"), nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("duration_s", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("media", sa.String),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("updated_at"),
        _instant("deleted_at", nullable=True),
        sa.CheckConstraint("duration_s > 0", name="lesson_duration_s_check"),
    )
    op.create_index(
        "lesson_course", "lesson", ["course_id", "position"], postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.create_table(
        "media_key",
        sa.Column("only", sa.SmallInteger, primary_key=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
    )


def _learning() -> None:
    op.create_table(
        "access",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("member_lessons", TSTZMULTIRANGE, nullable=False),
        sa.Column("live_priority", TSTZMULTIRANGE, nullable=False),
    )
    op.create_table(
        "purchase",
        sa.Column("order_id", sa.Uuid, primary_key=True),
        sa.Column("member_id", sa.Uuid),
        sa.Column("course_id", sa.Uuid),
        _instant("paid_at", nullable=True),
        _instant("refunded_at", nullable=True),
    )
    op.create_index("purchase_member", "purchase", ["member_id", "course_id"])
    op.create_table(
        "progress",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("lesson.id"), primary_key=True),
        sa.Column("watched", INT4MULTIRANGE, nullable=False),
        sa.Column("position_s", sa.Integer, nullable=False),
        _instant("updated_at"),
        sa.CheckConstraint("position_s >= 0", name="progress_position_s_check"),
    )
    op.create_index("progress_recent", "progress", ["member_id", "updated_at", "lesson_id"])
    op.create_table(
        "completion",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("lesson.id"), primary_key=True),
        _instant("completed_at"),
    )
    op.create_table(
        "rating",
        sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("lesson.id"), primary_key=True),
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("score", sa.SmallInteger, nullable=False),
        sa.Column("comment", sa.String),
        _instant("updated_at"),
        sa.CheckConstraint("score BETWEEN 1 AND 5", name="rating_score_check"),
    )
    op.create_index("rating_member", "rating", ["member_id"])


def _live() -> None:
    op.create_table(
        "live_lesson",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("instructor", sa.String),
        sa.Column("instructor_id", sa.Uuid),
        _instant("starts_at"),
        _instant("ends_at"),
        sa.Column("zone", sa.String, nullable=False),
        sa.Column("capacity", sa.Integer),
        sa.Column("priority_seats", sa.Integer, nullable=False),
        sa.Column("enrolled", sa.Integer, nullable=False),
        sa.Column("general", sa.Integer, nullable=False),
        sa.Column("access", JSONB, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("updated_at"),
        _instant("deleted_at", nullable=True),
        sa.CheckConstraint("ends_at > starts_at", name="live_lesson_span_check"),
        sa.CheckConstraint(
            "status IN ('draft', 'scheduled', 'live', 'paused', 'ended', 'replay_ready', 'canceled')",
            name="live_lesson_status_check",
        ),
        sa.CheckConstraint("capacity > 0 AND priority_seats BETWEEN 0 AND capacity", name="live_lesson_capacity_check"),
        sa.CheckConstraint(
            "enrolled <= capacity AND general BETWEEN 0 AND enrolled", name="live_lesson_enrolled_check"
        ),
        sa.CheckConstraint("instructor IS NOT NULL OR instructor_id IS NOT NULL", name="live_lesson_instructor_check"),
    )
    op.create_index(
        "live_lesson_calendar", "live_lesson", ["starts_at", "id"], postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.create_index(
        "live_lesson_running",
        "live_lesson",
        ["ends_at"],
        postgresql_where=sa.text("status IN ('live', 'paused')"),
    )
    op.create_table(
        "enrolment",
        sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("live_lesson.id"), primary_key=True),
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("priority", sa.Boolean, nullable=False),
        sa.Column("place", sa.BigInteger, sa.Identity(always=True), nullable=False),
        _instant("enrolled_at"),
        sa.CheckConstraint("status IN ('enrolled', 'waitlisted')", name="enrolment_status_check"),
    )
    op.create_index(
        "enrolment_queue", "enrolment", ["lesson_id", "place"], postgresql_where=sa.text("status = 'waitlisted'")
    )
    op.create_index("enrolment_member", "enrolment", ["member_id"])
