"""Where a picture stands is found by the picture: it was looked for among all of them whenever one was deleted."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Index it."""
    op.create_index("entry_image_upload_id_idx", "entry_image", ["upload_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("entry_image_upload_id_idx", "entry_image")
