"""Plans of before are told, as every change of them is from now on."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Tell of every plan there is, once; revisions tell which news is newer."""
    op.execute("""
    INSERT INTO outbox (event_id, type, at, body)
    SELECT event_id, 'billing.plan.changed', now(), jsonb_build_object(
        'id', event_id, 'at', now(), 'plan_code', code, 'revision', revision, 'name', name, 'months', months,
        'benefits', benefits, 'active', active
    )
    FROM (SELECT gen_random_uuid() AS event_id, * FROM plan ORDER BY plan.code OFFSET 0) AS announced
    """)


def downgrade() -> None:
    """What was told stays told."""
