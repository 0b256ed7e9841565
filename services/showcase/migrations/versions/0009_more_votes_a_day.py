"""Contests may give a thousand votes a day."""

from alembic import op

revision = "0009"
down_revision = "0008"

CHECKS = {"contest": "votes_per_day", "vote": "slot"}


def _allow(most: int) -> None:
    for table, column in CHECKS.items():
        op.drop_constraint(column, table, type_="check")
        op.create_check_constraint(column, table, f"{column} BETWEEN 1 AND {most}")


def upgrade() -> None:
    """Widen both checks."""
    _allow(1000)


def downgrade() -> None:
    """Narrow them."""
    _allow(100)
