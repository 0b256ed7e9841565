"""Refresh tokens are found by their end: those of a session that goes on are forgotten, too."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Index it."""
    op.create_index("refresh_token_expires_at_idx", "refresh_token", ["expires_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("refresh_token_expires_at_idx", "refresh_token")
