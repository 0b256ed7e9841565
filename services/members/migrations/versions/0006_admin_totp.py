"""One-time passwords of admins, and how often a login failed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add them."""
    op.add_column("admin", sa.Column("totp_secret", sa.String))
    op.add_column("admin", sa.Column("totp_step", sa.BigInteger, server_default=sa.text("0"), nullable=False))
    op.add_column("admin", sa.Column("totp_enabled", sa.Boolean, server_default=sa.text("false"), nullable=False))
    op.add_column("admin", sa.Column("failures", sa.Integer, server_default=sa.text("0"), nullable=False))
    op.add_column("admin", sa.Column("locked_until", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop them."""
    for column in ("locked_until", "failures", "totp_enabled", "totp_step", "totp_secret"):
        op.drop_column("admin", column)
