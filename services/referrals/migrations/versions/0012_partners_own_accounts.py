"""The account that a partner has as a member."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column."""
    op.add_column("partner", sa.Column("member_id", sa.Uuid))
    op.create_index("partner_member_id_idx", "partner", ["member_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("partner_member_id_idx")
    op.drop_column("partner", "member_id")
