"""What renewals, disputes and plans say of membership time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add it; nobody has been renewing or disputing yet."""
    op.add_column("segment", sa.Column("pauses", JSONB, server_default=sa.text("'[]'"), nullable=False))
    op.add_column(
        "membership_version", sa.Column("renewing", sa.Boolean, server_default=sa.text("false"), nullable=False)
    )
    op.add_column("membership_version", sa.Column("grace_until", sa.DateTime(timezone=True)))
    op.create_index(
        "membership_version_grace_until_idx",
        "membership_version",
        ["grace_until", "member_id"],
        postgresql_where=sa.text("grace_until IS NOT NULL"),
    )
    op.create_table(
        "dispute",
        sa.Column("source", sa.String, nullable=False),
        sa.Column("source_id", sa.Uuid, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("removes_time", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("source", "source_id", "at", "outcome", name="dispute_pkey"),
    )
    op.create_table(
        "renewal",
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("renewing", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", name="renewal_pkey"),
    )
    op.create_index("renewal_member_id_idx", "renewal", ["member_id"])
    op.add_column("plan_benefits", sa.Column("revision", sa.Integer))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("plan_benefits", "revision")
    op.drop_table("renewal")
    op.drop_table("dispute")
    op.drop_index("membership_version_grace_until_idx", "membership_version")
    op.drop_column("membership_version", "grace_until")
    op.drop_column("membership_version", "renewing")
    op.drop_column("segment", "pauses")
