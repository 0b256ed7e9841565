"""Signals of votes, quarantine, and what results are counted from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns, give votes that are there the signals that are known, and create the tables."""
    op.add_column("member_card", sa.Column("tree_id", sa.Uuid))
    op.add_column("member_card", sa.Column("device", sa.LargeBinary))
    op.create_index(
        "member_card_tree_id_idx", "member_card", ["tree_id"], postgresql_where=sa.text("tree_id IS NOT NULL")
    )
    secret = sa.Column("signal_secret", sa.LargeBinary, server_default=sa.text("uuid_send(gen_random_uuid())"))
    op.add_column("contest", secret)
    op.add_column("vote", sa.Column("account_hours", sa.Integer))
    op.add_column("vote", sa.Column("address", sa.LargeBinary))
    op.add_column("vote", sa.Column("device", sa.LargeBinary))
    op.add_column("vote", sa.Column("tree", sa.LargeBinary))
    op.add_column("vote", sa.Column("quarantine", sa.String))
    op.execute("""
        UPDATE vote SET tree = substr(sha256(uuid_send(vote.member_id)), 1, 8), account_hours = coalesce(floor((
            SELECT extract(epoch FROM vote.cast_at - registered_at) FROM member_card
            WHERE member_card.member_id = vote.member_id) / 3600), 0)
    """)
    op.alter_column("vote", "account_hours", nullable=False)
    op.alter_column("vote", "tree", nullable=False)
    op.add_column("tally", sa.Column("changes", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "quarantine_run",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("contest_id", sa.Uuid, sa.ForeignKey("contest.id"), nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("params", JSONB),
        sa.Column("votes", sa.Integer, nullable=False),
        sa.Column("entries", sa.Integer, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
    )
    op.create_index("quarantine_run_contest_id_idx", "quarantine_run", ["contest_id", "id"])
    op.create_table(
        "settlement",
        sa.Column("contest_id", sa.Uuid, sa.ForeignKey("contest.id"), primary_key=True),
        sa.Column("settled_at", INSTANT, nullable=False),
        sa.Column("tie_chain", JSONB, nullable=False),
        sa.Column("votes", sa.Integer, nullable=False),
        sa.Column("voters", sa.Integer, nullable=False),
        sa.Column("counted", sa.Integer, nullable=False),
        sa.Column("removed", JSONB, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("settlement")
    op.drop_table("quarantine_run")
    op.drop_column("tally", "changes")
    for column in ("quarantine", "tree", "device", "address", "account_hours"):
        op.drop_column("vote", column)
    op.drop_column("contest", "signal_secret")
    op.drop_index("member_card_tree_id_idx", "member_card")
    op.drop_column("member_card", "device")
    op.drop_column("member_card", "tree_id")
