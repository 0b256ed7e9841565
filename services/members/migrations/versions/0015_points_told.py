"""Points are told: courses says in how many a live lesson's way by points is short."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

# Not at once: where processes are replaced one after the other, the listeners that are to hear it may still be old.
MARK = """
INSERT INTO retelling (topic, after, due_at)
SELECT 'points', '00000000-0000-0000-0000-000000000000', now() + interval '15 minutes'
WHERE EXISTS (SELECT FROM point_entry)
"""


def upgrade() -> None:
    """Tell everybody's."""
    op.create_table(
        "retelling",
        sa.Column("topic", sa.String, primary_key=True),
        sa.Column("after", sa.Uuid, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute(MARK)


def downgrade() -> None:
    """Drop it."""
    op.drop_table("retelling")
