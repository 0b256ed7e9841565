"""What listeners began to keep is told again: memberships, for the coupon of the month, and points, for a lesson's way by them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

MARK = """
INSERT INTO retelling (topic, after)
SELECT topic, '00000000-0000-0000-0000-000000000000' FROM (
    SELECT 'memberships' WHERE EXISTS (SELECT FROM segment) UNION ALL SELECT 'points' WHERE EXISTS (SELECT FROM point_entry)
) AS held (topic)
"""


def upgrade() -> None:
    """Tell everybody's."""
    op.create_table(
        "retelling",
        sa.Column("topic", sa.String, primary_key=True),
        sa.Column("after", sa.Uuid, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
    )
    op.execute(MARK)


def downgrade() -> None:
    """Drop it."""
    op.drop_table("retelling")
