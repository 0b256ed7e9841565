"""Evidence piece by piece, the categories of lessons, the history of tiers, and who judges roles."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

# What gave points so far is the evidence so far.
EVIDENCE = """
INSERT INTO evidence (member_id, kind, reference, lesson_id, at)
SELECT member_id, reason, CAST(reference AS uuid),
    CASE WHEN reason = 'lesson_finished' THEN CAST(reference AS uuid) END, at
FROM point_entry WHERE reason IN ('lesson_finished', 'work_approved')
"""
PROVEN = "UPDATE member SET proven_tier = 'beginner' WHERE id IN (SELECT member_id FROM evidence)"


def upgrade() -> None:
    """Add them, and take up what is there."""
    op.create_table(
        "evidence",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("reference", sa.Uuid, nullable=False),
        sa.Column("lesson_id", sa.Uuid),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "kind", "reference", name="evidence_pkey"),
    )
    op.create_index("evidence_kind_at_idx", "evidence", ["kind", "at"])
    op.create_table(
        "lesson_category",
        sa.Column("lesson_id", sa.Uuid, nullable=False),
        sa.Column("category", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("lesson_id", name="lesson_category_pkey"),
    )
    op.create_table(
        "tier_change",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("before", sa.String, nullable=False),
        sa.Column("after", sa.String, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("evidence", JSONB, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="tier_change_pkey"),
    )
    op.create_index("tier_change_member_id_idx", "tier_change", ["member_id", "at", "id"])
    op.add_column("member", sa.Column("proven_tier", sa.String, server_default="potential", nullable=False))
    op.add_column("member", sa.Column("roles_by_admin", sa.Boolean, server_default=sa.text("false"), nullable=False))
    op.create_index("login_session_last_seen_at_idx", "login_session", ["last_seen_at"])
    op.execute(EVIDENCE)
    op.execute(PROVEN)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("login_session_last_seen_at_idx", "login_session")
    op.drop_column("member", "roles_by_admin")
    op.drop_column("member", "proven_tier")
    for table in ("tier_change", "lesson_category", "evidence"):
        op.drop_table(table)
