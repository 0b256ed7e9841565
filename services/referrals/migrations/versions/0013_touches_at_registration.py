"""Touches that were named at registration are told apart from links that were opened."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

KNOWN = """
UPDATE touch SET at_registration = true FROM member_card card
WHERE card.member_id = touch.newcomer_id AND card.registered_at = touch.at
"""


def upgrade() -> None:
    """Add the column, and fill it where it is known."""
    op.add_column("touch", sa.Column("at_registration", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(KNOWN)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("touch", "at_registration")
