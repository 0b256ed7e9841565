"""Links to works that credit whoever shares them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "share_link",
        sa.Column("token", sa.String, primary_key=True),
        sa.Column("entry_id", sa.Uuid, sa.ForeignKey("entry.id"), nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("share_link_entry_key", "share_link", ["entry_id", "member_id"], unique=True)
    op.create_index("share_link_member_id_idx", "share_link", ["member_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("share_link")
