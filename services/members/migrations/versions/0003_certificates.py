"""Certificates."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add them; a member has one open application at most."""
    op.create_table(
        "certificate",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("issuer", sa.String, nullable=False),
        sa.Column("proof_url", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sa.Column("decided_by", sa.Uuid),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="certificate_member_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="certificate_pkey"),
    )
    op.create_index("certificate_member_id_idx", "certificate", ["member_id", "created_at", "id"])
    op.create_index("certificate_status_idx", "certificate", ["status", "created_at", "id"])
    op.create_index(
        "certificate_open_idx",
        "certificate",
        ["member_id"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("certificate")
