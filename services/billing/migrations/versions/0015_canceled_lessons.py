"""Live lessons that were canceled, and the orders of one course."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Make the table, and the index by which a course's orders are found."""
    op.create_table(
        "canceled_lesson",
        sa.Column("lesson_id", sa.Uuid, primary_key=True),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("order_course", "order", ["course_id"], postgresql_where=sa.text("course_id IS NOT NULL"))


def downgrade() -> None:
    """Drop them."""
    op.drop_index("order_course", "order")
    op.drop_table("canceled_lesson")
