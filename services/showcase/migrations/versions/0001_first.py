"""The first tables of showcase."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from kit.migrations import create_kit_tables_1, drop_kit_tables_1

revision = "0001"
down_revision = None

TABLES = ("result", "comment", "tally", "vote", "entry_image", "entry", "upload", "contest", "member_card")


def upgrade() -> None:
    """Create them."""
    create_kit_tables_1()
    op.create_table(
        "member_card",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("nickname", sa.String, nullable=False),
        _instant("registered_at", nullable=True),
        sa.Column("invite_code", sa.String),
        _instant("changed_at", nullable=True),
    )
    _contests()
    _works()
    _votes()


def downgrade() -> None:
    """Drop them."""
    for table in TABLES:
        op.drop_table(table)
    drop_kit_tables_1()


def _contests() -> None:
    op.create_table(
        "contest",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("rules", sa.String, nullable=False),
        _instant("starts_at"),
        _instant("ends_at"),
        sa.Column("votes_per_day", sa.Integer, nullable=False),
        _instant("accounts_before"),
        sa.Column("moderation", sa.String, nullable=False),
        sa.Column("hide_totals", sa.Boolean, nullable=False),
        sa.Column("prizes", JSONB, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("settled_at", nullable=True),
        sa.CheckConstraint("ends_at > starts_at", name="span"),
        sa.CheckConstraint("accounts_before <= ends_at", name="accounts"),
        sa.CheckConstraint("votes_per_day BETWEEN 1 AND 100", name="votes_per_day"),
        sa.CheckConstraint("moderation IN ('pre', 'post')", name="moderation"),
    )


def _works() -> None:
    op.create_table(
        "upload",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("member_id", sa.Uuid, nullable=False, index=True),
        sa.Column("content", sa.String, nullable=False),
        sa.Column("suffix", sa.String, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        _instant("created_at"),
    )
    op.create_table(
        "entry",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("contest_id", sa.Uuid, sa.ForeignKey("contest.id"), nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("story", sa.String, nullable=False),
        sa.Column("lesson_id", sa.Uuid),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        _instant("submitted_at"),
        _instant("approved_at", nullable=True),
        sa.CheckConstraint("status IN ('pending', 'approved', 'rejected', 'withdrawn')", name="status"),
    )
    op.create_index("entry_contest_id_idx", "entry", ["contest_id", "status", "id"])
    op.create_index("entry_member_id_idx", "entry", ["member_id", "id"])
    op.create_table(
        "entry_image",
        sa.Column("entry_id", sa.Uuid, sa.ForeignKey("entry.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("contest_id", sa.Uuid, nullable=False),
        sa.Column("upload_id", sa.Uuid, sa.ForeignKey("upload.id"), nullable=False),
        sa.Column("standing", sa.Boolean, nullable=False),
    )
    standing = sa.text("standing")
    op.create_index(
        "entry_image_standing_key", "entry_image", ["contest_id", "upload_id"], unique=True, postgresql_where=standing
    )
    op.create_table(
        "comment",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("entry_id", sa.Uuid, sa.ForeignKey("entry.id"), nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        _instant("created_at"),
    )
    op.create_index("comment_entry_id_idx", "comment", ["entry_id", "id"])


def _votes() -> None:
    op.create_table(
        "vote",
        sa.Column("entry_id", sa.Uuid, primary_key=True),
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("contest_id", sa.Uuid, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        _instant("cast_at"),
        sa.UniqueConstraint("contest_id", "member_id", "day", "slot"),
        sa.CheckConstraint("slot BETWEEN 1 AND 100", name="slot"),
    )
    op.create_table(
        "tally",
        sa.Column("entry_id", sa.Uuid, sa.ForeignKey("entry.id"), primary_key=True),
        sa.Column("votes", sa.Integer, nullable=False),
        sa.CheckConstraint("votes >= 0", name="votes"),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "result",
        sa.Column("entry_id", sa.Uuid, sa.ForeignKey("entry.id"), primary_key=True),
        sa.Column("contest_id", sa.Uuid, sa.ForeignKey("contest.id"), nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("votes", sa.Integer, nullable=False),
        sa.Column("trees", sa.Integer, nullable=False),
        _instant("reached_at", nullable=True),
        _instant("submitted_at"),
        sa.Column("tie_break", sa.String),
        sa.Column("prize", JSONB),
        sa.UniqueConstraint("contest_id", "rank"),
    )


def _instant(name: str, **options: Any) -> "sa.Column[Any]":
    return sa.Column(name, sa.DateTime(timezone=True), **({"nullable": False} | options))
