"""A reward may be revoked."""

from alembic import op

revision = "0004"
down_revision = "0003"

# The first migration's name for it went through the naming convention once more.
DROP = "ALTER TABLE reward DROP CONSTRAINT IF EXISTS reward_reward_status_check_check"
ADD = "ALTER TABLE reward ADD CONSTRAINT reward_reward_status_check_check CHECK (status IN ({words}))"
WORDS = "'granted', 'refused'"


def upgrade() -> None:
    """Let the check know the word."""
    op.execute(DROP)
    op.execute(ADD.format(words=f"{WORDS}, 'revoked'"))


def downgrade() -> None:
    """Take it away again; revoked rewards are refused ones then."""
    op.execute("UPDATE reward SET status = 'refused' WHERE status = 'revoked'")
    op.execute(DROP)
    op.execute(ADD.format(words=WORDS))
