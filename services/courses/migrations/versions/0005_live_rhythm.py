"""The live rhythm: private calendars, reminders, what members want taught."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "calendar_feed",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("token", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("calendar_feed_token", "calendar_feed", ["token"], unique=True)
    op.create_table(
        "live_reminder",
        sa.Column("lesson_id", sa.Uuid, sa.ForeignKey("live_lesson.id"), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("lesson_id", "kind", "starts_at"),
    )
    op.create_table(
        "lesson_request",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("member_id", sa.Uuid),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("votes", sa.Integer, nullable=False),
        sa.Column("live_lesson_id", sa.Uuid, sa.ForeignKey("live_lesson.id")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("votes >= 0", name="lesson_request_votes_check"),
    )
    op.create_index("lesson_request_member", "lesson_request", ["member_id"])
    op.create_table(
        "lesson_request_vote",
        sa.Column("request_id", sa.Uuid, sa.ForeignKey("lesson_request.id"), nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("voted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "member_id"),
    )
    op.create_index("lesson_request_vote_member", "lesson_request_vote", ["member_id"])


def downgrade() -> None:
    """Drop them."""
    for table in ("lesson_request_vote", "lesson_request", "live_reminder", "calendar_feed"):
        op.drop_table(table)
