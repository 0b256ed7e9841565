"""Links to works, which lead to whoever shared them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "share_link",
        sa.Column("token", sa.String, primary_key=True),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("entry_id", sa.Uuid, nullable=False),
    )
    op.create_index("share_link_member_id_idx", "share_link", ["member_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("share_link")
