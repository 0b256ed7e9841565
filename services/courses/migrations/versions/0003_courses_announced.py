"""Courses are told to billing, which sells them, and a dispute may take one away for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# The courses of before are told here, once, as any later change of them will be; versions tell which is newer.
ANNOUNCE = sa.text("""
INSERT INTO outbox (event_id, type, at, body)
SELECT event_id, 'courses.course.changed', now(), jsonb_build_object(
    'id', event_id, 'at', now(), 'course_id', id, 'version', version, 'title', title, 'access', access,
    'amount', amount, 'currency', currency, 'published', published AND deleted_at IS NULL
)
FROM (SELECT gen_random_uuid() AS event_id, * FROM course ORDER BY course.id OFFSET 0) AS announced
""")


def upgrade() -> None:
    """Add what a purchase must know of disputes, and tell of every course there is."""
    op.add_column("purchase", sa.Column("suspended", sa.Boolean, nullable=False, server_default=sa.false()))
    op.alter_column("purchase", "suspended", server_default=None)
    op.add_column("purchase", sa.Column("dispute_told_at", sa.DateTime(timezone=True)))
    op.execute(ANNOUNCE)


def downgrade() -> None:
    """Forget disputes; what was told stays told."""
    op.drop_column("purchase", "dispute_told_at")
    op.drop_column("purchase", "suspended")
