"""Courses on sale, and who bought them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables; what courses cost comes with courses' own news."""
    op.create_table(
        "course_price",
        sa.Column("course_id", sa.Uuid, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("access", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("published", sa.Boolean, nullable=False),
    )
    op.create_table(
        "course_holding",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("course_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("bought_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "course_id"),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"]),
        sa.UniqueConstraint("order_id"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("course_holding")
    op.drop_table("course_price")
