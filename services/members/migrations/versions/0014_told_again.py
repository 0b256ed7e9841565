"""Memberships that run are told again: referrals keeps when the coupon of the month is open only since it is."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

# Not at once: where processes are replaced one after the other, the listeners that are to hear it may still be old.
MARK = """
UPDATE membership_version SET tell_at = now() + interval '15 minutes' WHERE EXISTS (
    SELECT FROM segment WHERE segment.member_id = membership_version.member_id AND revoked_at IS NULL
    AND ends_at > now() - interval '7 days'
) AND NOT EXISTS (SELECT FROM member WHERE id = membership_version.member_id AND erased_at IS NOT NULL)
"""


def upgrade() -> None:
    """Mark them."""
    op.add_column("membership_version", sa.Column("tell_at", sa.DateTime(timezone=True)))
    op.execute(MARK)
    op.create_index(
        "membership_version_tell_at_idx",
        "membership_version",
        ["tell_at", "member_id"],
        postgresql_where=sa.text("tell_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("membership_version_tell_at_idx", "membership_version")
    op.drop_column("membership_version", "tell_at")
