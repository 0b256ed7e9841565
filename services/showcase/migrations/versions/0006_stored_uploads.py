"""Whether an upload's files are there, and which pictures somebody is deleting."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; of the uploads there are, all files are there."""
    op.add_column("upload", sa.Column("stored", sa.Boolean, nullable=False, server_default=sa.true()))
    op.alter_column("upload", "stored", server_default=None)
    op.create_index("upload_unfinished_idx", "upload", ["created_at"], postgresql_where=sa.text("NOT stored"))
    op.add_column("discarded_picture", sa.Column("deleting_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("discarded_picture", "deleting_at")
    op.drop_index("upload_unfinished_idx", "upload")
    op.drop_column("upload", "stored")
