"""Live lessons' rooms: ways in, what is told, asked and attended."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TSTZMULTIRANGE

revision = "0004"
down_revision = "0003"

TABLES = (
    "attendance",
    "question_answer",
    "question_upvote",
    "question",
    "room_evidence",
    "live_event",
    "live_room",
    "share_switch",
    "points_payment",
    "arrival",
    "invite_link",
    "live_grant",
    "person",
)


def upgrade() -> None:
    """Create the tables; of the benefits not kept so far each holder of a like one is taken to have them."""
    _add_benefit("live_replay", "member_lessons")
    _add_benefit("qa_priority", "live_priority")
    op.add_column("live_lesson", sa.Column("media", sa.String))
    _ways()
    _room()
    _questions()
    op.create_table(
        "attendance",
        _lesson(),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("spans", TSTZMULTIRANGE, nullable=False),
        sa.PrimaryKeyConstraint("lesson_id", "member_id"),
    )
    op.create_index("attendance_member", "attendance", ["member_id"])


def downgrade() -> None:
    """Drop them."""
    for table in TABLES:
        op.drop_table(table)
    op.drop_column("live_lesson", "media")
    op.drop_column("access", "qa_priority")
    op.drop_column("access", "live_replay")


def _add_benefit(name: str, like: str) -> None:
    op.add_column("access", sa.Column(name, TSTZMULTIRANGE))
    op.execute(f"UPDATE access SET {name} = {like}")  # noqa: S608 - our own names
    op.alter_column("access", name, nullable=False)


def _lesson() -> sa.Column[UUID]:
    return sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("live_lesson.id"), nullable=False)


def _instant(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _ways() -> None:
    op.create_table(
        "person",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("nickname", sa.String, nullable=False),
    )
    op.create_table(
        "live_grant",
        _lesson(),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        _instant("granted_at"),
        sa.PrimaryKeyConstraint("lesson_id", "member_id"),
    )
    op.create_index("live_grant_member", "live_grant", ["member_id"])
    op.create_table(
        "invite_link",
        sa.Column("id", sa.Uuid, primary_key=True),
        _lesson(),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("token", sa.String, nullable=False),
        _instant("created_at"),
    )
    op.create_index("invite_link_of", "invite_link", ["member_id", "lesson_id"], unique=True)
    op.create_index("invite_link_token", "invite_link", ["token"], unique=True)
    op.create_table(
        "arrival",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("link_id", sa.Uuid, sa.ForeignKey("invite_link.id"), nullable=False),
        _instant("arrived_at"),
    )
    op.create_index("arrival_link", "arrival", ["link_id"])
    op.create_table(
        "points_payment",
        sa.Column("id", sa.Uuid, primary_key=True),
        _lesson(),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("points", sa.BigInteger, nullable=False),
        sa.Column("balance", sa.BigInteger),
        sa.Column("status", sa.String, nullable=False),
        _instant("asked_at"),
        sa.CheckConstraint("status IN ('pending', 'paid', 'refused', 'returned')", name="points_payment_status_check"),
        sa.CheckConstraint("points > 0", name="points_payment_points_check"),
    )
    op.create_index(
        "points_payment_open",
        "points_payment",
        ["lesson_id", "member_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('pending', 'paid')"),
    )
    op.create_index("points_payment_member", "points_payment", ["member_id"])
    op.create_table(
        "share_switch",
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("invites", sa.Boolean, nullable=False),
        sa.CheckConstraint("channel IN ('mini_program', 'h5', 'app')", name="share_switch_channel_check"),
    )


def _room() -> None:
    op.create_table(
        "live_room",
        sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("live_lesson.id"), primary_key=True),
        sa.Column("told", sa.BigInteger, nullable=False),
        _instant("opened_at", nullable=True),
        sa.Column("close_wanted", sa.Boolean, nullable=False),
        _instant("closed_at", nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        _instant("next_attempt_at", nullable=True),
    )
    op.create_index(
        "live_room_to_close",
        "live_room",
        ["next_attempt_at"],
        postgresql_where=sa.text("closed_at IS NULL AND close_wanted"),
    )
    op.create_table(
        "live_event",
        _lesson(),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("body", JSONB, nullable=False),
        _instant("at"),
        sa.PrimaryKeyConstraint("lesson_id", "number"),
    )
    op.create_table(
        "room_evidence",
        sa.Column("id", sa.String, primary_key=True),
        _lesson(),
        sa.Column("member_id", sa.Uuid),
        sa.Column("kind", sa.String, nullable=False),
        _instant("at"),
    )
    op.create_index("room_evidence_lesson", "room_evidence", ["lesson_id"])
    op.create_index("room_evidence_member", "room_evidence", ["member_id"])


def _questions() -> None:
    op.create_table(
        "question",
        sa.Column("id", sa.Uuid, primary_key=True),
        _lesson(),
        sa.Column("member_id", sa.Uuid),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("priority", sa.Boolean, nullable=False),
        sa.Column("upvotes", sa.Integer, nullable=False),
        _instant("asked_at"),
        sa.CheckConstraint("upvotes >= 0", name="question_upvotes_check"),
    )
    op.create_index("question_lesson", "question", ["lesson_id"])
    op.create_index("question_member", "question", ["member_id"])
    op.create_table(
        "question_upvote",
        sa.Column("question_id", sa.Uuid, sa.ForeignKey("question.id"), nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        _instant("upvoted_at"),
        sa.PrimaryKeyConstraint("question_id", "member_id"),
    )
    op.create_index("question_upvote_member", "question_upvote", ["member_id"])
    op.create_table(
        "question_answer",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("question_id", sa.Uuid, sa.ForeignKey("question.id"), nullable=False),
        sa.Column("member_id", sa.Uuid),
        sa.Column("by_admin", sa.Boolean, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        _instant("answered_at"),
    )
    op.create_index("question_answer_of", "question_answer", ["question_id", "id"])
    op.create_index("question_answer_member", "question_answer", ["member_id"])
