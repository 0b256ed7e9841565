"""What the provider said is found while it is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Index what is kept, in place of everything that ever came."""
    op.create_index(
        "provider_event_kept",
        "provider_event",
        ["received_at"],
        postgresql_where=sa.text("handled_at IS NOT NULL AND octet_length(payload) > 0"),
    )
    op.drop_index("provider_event_received_at_idx", "provider_event")


def downgrade() -> None:
    """Index everything again."""
    op.create_index("provider_event_received_at_idx", "provider_event", ["received_at"])
    op.drop_index("provider_event_kept", "provider_event")
