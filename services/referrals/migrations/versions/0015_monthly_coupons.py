"""When members may take the coupon of the month."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSTZMULTIRANGE

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "coupon_benefit",
        sa.Column("member_id", sa.Uuid, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("spans", TSTZMULTIRANGE, nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("coupon_benefit")
