"""Several old secrets of a webhook endpoint, and until when its log is kept."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

INSTANT = sa.DateTime(timezone=True)
SEALED = """
UPDATE webhook_endpoint SET old_secrets =
    jsonb_build_array(jsonb_build_object('sealed', sealed_old_secret, 'until', old_secret_until))
WHERE sealed_old_secret IS NOT NULL AND old_secret_until IS NOT NULL
"""
UNSEALED = """
UPDATE webhook_endpoint SET sealed_old_secret = old_secrets -> -1 ->> 'sealed',
    old_secret_until = CAST(old_secrets -> -1 ->> 'until' AS timestamptz)
WHERE old_secrets <> '[]'
"""


def upgrade() -> None:
    """Move the old secrets into a list; what ended already is kept as if it had ended when it was made."""
    op.add_column(
        "webhook_endpoint", sa.Column("old_secrets", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'"))
    )
    op.execute(SEALED)
    op.alter_column("webhook_endpoint", "old_secrets", server_default=None)
    op.drop_column("webhook_endpoint", "sealed_old_secret")
    op.drop_column("webhook_endpoint", "old_secret_until")
    op.alter_column("webhook_message", "body", nullable=True)
    op.drop_index("webhook_message_at_idx")
    kept = sa.text("body IS NOT NULL")
    op.create_index("webhook_message_at_idx", "webhook_message", ["at"], postgresql_where=kept)
    op.create_index("webhook_message_partner_id_idx", "webhook_message", ["partner_id", "at"], postgresql_where=kept)
    op.add_column("webhook_delivery", sa.Column("ended_at", INSTANT))
    op.execute("UPDATE webhook_delivery SET ended_at = created_at WHERE status <> 'pending'")
    op.create_index(
        "webhook_delivery_ended_at_idx",
        "webhook_delivery",
        ["ended_at"],
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Go back to one old secret; bodies that were forgotten are empty."""
    op.drop_column("webhook_delivery", "ended_at")
    op.drop_index("webhook_message_partner_id_idx")
    op.drop_index("webhook_message_at_idx")
    op.create_index("webhook_message_at_idx", "webhook_message", ["at"])
    op.execute("UPDATE webhook_message SET body = '{}' WHERE body IS NULL")
    op.alter_column("webhook_message", "body", nullable=False)
    op.add_column("webhook_endpoint", sa.Column("sealed_old_secret", sa.String))
    op.add_column("webhook_endpoint", sa.Column("old_secret_until", INSTANT))
    op.execute(UNSEALED)
    op.drop_column("webhook_endpoint", "old_secrets")
