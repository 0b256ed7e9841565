"""Who left, so that nothing that comes late begins anew."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "erased_member",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("erased_id", sa.Uuid),
        sa.Column("passes", sa.Integer, nullable=False),
        sa.Column("next_pass_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("digest", name="erased_member_pkey"),
    )
    op.create_index("erased_member_next_pass_at_idx", "erased_member", ["next_pass_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("erased_member")
