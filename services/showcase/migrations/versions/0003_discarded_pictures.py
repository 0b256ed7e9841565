"""Pictures whose files are to be deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# Of those who left before this was known.
_LEFT = """
CREATE TEMPORARY TABLE left_before ON COMMIT DROP AS
SELECT member_id FROM member_card WHERE changed_at = '9999-12-31 23:59:59.999999+00'
"""
_WORKS = """
UPDATE entry SET status = 'withdrawn' FROM contest
WHERE entry.member_id IN (SELECT member_id FROM left_before)
AND contest.id = entry.contest_id AND contest.settled_at IS NULL
"""
_IMAGES = """
DELETE FROM entry_image USING upload
WHERE upload.id = entry_image.upload_id AND upload.member_id IN (SELECT member_id FROM left_before)
"""
_UPLOADS = """
WITH gone AS (
    DELETE FROM upload WHERE member_id IN (SELECT member_id FROM left_before) RETURNING content, suffix
)
INSERT INTO discarded_picture (content, suffix, discarded_at) SELECT DISTINCT content, suffix, now() FROM gone
"""


def upgrade() -> None:
    """Add the table, and put in what is to go."""
    op.create_table(
        "discarded_picture",
        sa.Column("content", sa.String, nullable=False),
        sa.Column("suffix", sa.String, nullable=False),
        sa.Column("discarded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("content", name="discarded_picture_pkey"),
    )
    op.create_index("discarded_picture_discarded_at_idx", "discarded_picture", ["discarded_at"])
    op.create_index("upload_content_idx", "upload", ["content"])
    for statement in (_LEFT, _WORKS, _IMAGES, _UPLOADS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("upload_content_idx", "upload")
    op.drop_table("discarded_picture")
