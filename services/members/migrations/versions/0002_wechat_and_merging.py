"""WeChat users of the sandbox, and who was merged into whom."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them; the foreign key is checked at once, as no row has one yet."""
    op.create_table(
        "sandbox_wechat_user",
        sa.Column("js_code", sa.String, nullable=False),
        sa.Column("openid", sa.String, nullable=False),
        sa.Column("unionid", sa.String),
        sa.PrimaryKeyConstraint("js_code", name="sandbox_wechat_user_pkey"),
    )
    op.add_column("member", sa.Column("merged_into", sa.Uuid))
    op.create_foreign_key("member_merged_into_fkey", "member", "member", ["merged_into"], ["id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_column("member", "merged_into")
    op.drop_table("sandbox_wechat_user")
