"""Comments are found by who wrote them: whoever leaves, or asks what is held about them, waited for all of them."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Index them."""
    op.create_index("comment_member_id_idx", "comment", ["member_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("comment_member_id_idx", "comment")
