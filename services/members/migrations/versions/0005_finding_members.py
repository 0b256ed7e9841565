"""Indexes by which admins find members."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add them."""
    op.create_index("member_tier_idx", "member", ["tier", "created_at", "id"])
    op.create_index("segment_ends_at_idx", "segment", ["ends_at", "starts_at", "member_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("segment_ends_at_idx", "segment")
    op.drop_index("member_tier_idx", "member")
