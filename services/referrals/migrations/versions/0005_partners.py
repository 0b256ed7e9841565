"""Partners, their links, and what they are owed and were paid."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, and say in touches, origins and purchases what they need."""
    op.create_table(
        "partner",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("client_id", sa.String, nullable=False, unique=True),
        sa.Column("secret_hash", sa.String, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("client_version", sa.Integer, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
    )
    op.create_table(
        "partner_terms",
        sa.Column("partner_id", sa.Uuid, sa.ForeignKey("partner.id"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("trial_amount", sa.BigInteger),
        sa.Column("percent", sa.Integer, nullable=False),
        sa.Column("months", sa.Integer),
        sa.Column("hold_days", sa.Integer, nullable=False),
        sa.Column("starts_at", INSTANT, nullable=False),
        sa.CheckConstraint("percent BETWEEN 0 AND 100", name="percent"),
        sa.CheckConstraint("trial_amount > 0", name="trial_amount"),
        sa.CheckConstraint("months > 0", name="months"),
    )
    op.create_table(
        "partner_link",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("partner_id", sa.Uuid, sa.ForeignKey("partner.id"), nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("code", sa.String, nullable=False, unique=True),
        sa.Column("channel_code", sa.String, sa.ForeignKey("channel.code")),
        sa.Column("created_at", INSTANT, nullable=False),
    )
    op.create_index("partner_link_partner_id_idx", "partner_link", ["partner_id", "created_at", "id"])
    op.create_table(
        "payout_run",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("until", INSTANT, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("paid_at", INSTANT),
        sa.CheckConstraint("amount > 0", name="amount"),
    )
    op.create_index("payout_run_created_idx", "payout_run", ["created_at", "id"])
    op.create_table(
        "payout",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("run_id", sa.Uuid, sa.ForeignKey("payout_run.id"), nullable=False),
        sa.Column("partner_id", sa.Uuid, sa.ForeignKey("partner.id"), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.CheckConstraint("amount > 0", name="amount"),
    )
    op.create_index("payout_run_partner_key", "payout", ["run_id", "partner_id"], unique=True)
    op.create_index("payout_partner_id_idx", "payout", ["partner_id", "id"])
    _create_commissions()
    op.add_column("touch", sa.Column("link_id", sa.Uuid, sa.ForeignKey("partner_link.id")))
    op.add_column("attribution", sa.Column("partner_id", sa.Uuid, sa.ForeignKey("partner.id")))
    op.add_column("attribution", sa.Column("link_id", sa.Uuid, sa.ForeignKey("partner_link.id")))
    op.add_column("attribution", sa.Column("terms_version", sa.Integer))
    op.create_index(
        "attribution_partner_id_idx",
        "attribution",
        ["partner_id", "bound_at", "member_id"],
        postgresql_where=sa.text("partner_id IS NOT NULL"),
    )
    op.add_column("purchase", sa.Column("currency", sa.String, nullable=False, server_default="CNY"))
    op.alter_column("purchase", "currency", server_default=None)
    op.add_column("purchase", sa.Column("dispute", sa.String))


def _create_commissions() -> None:
    op.create_table(
        "commission",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("partner_id", sa.Uuid, sa.ForeignKey("partner.id"), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("reverses_id", sa.Uuid, sa.ForeignKey("commission.id")),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("accrued_at", INSTANT, nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("voided_at", INSTANT),
        sa.Column("payout_id", sa.Uuid, sa.ForeignKey("payout.id")),
        sa.CheckConstraint("kind IN ('trial', 'sale', 'reversal')", name="kind"),
        sa.CheckConstraint("status IN ('pending', 'due', 'paid', 'held', 'voided')", name="status"),
        sa.CheckConstraint("(kind = 'reversal') = (amount < 0) AND amount <> 0", name="amount"),
        sa.CheckConstraint("(kind = 'trial') = (order_id IS NULL)", name="order"),
        sa.CheckConstraint("(kind = 'reversal') = (reverses_id IS NOT NULL)", name="reverses"),
        sa.CheckConstraint("payout_id IS NULL OR status IN ('due', 'paid')", name="payout"),
    )
    for name, column, kind in (
        ("commission_trial_key", "member_id", "trial"),
        ("commission_sale_key", "order_id", "sale"),
    ):
        op.create_index(name, "commission", [column], unique=True, postgresql_where=sa.text(f"kind = '{kind}'"))
    op.create_index("commission_partner_id_idx", "commission", ["partner_id", "accrued_at", "id"])
    op.create_index(
        "commission_due_idx",
        "commission",
        ["due_at"],
        postgresql_where=sa.text("status IN ('pending', 'due') AND payout_id IS NULL"),
    )
    op.create_index("commission_order_id_idx", "commission", ["order_id"])
    op.create_index("commission_payout_id_idx", "commission", ["payout_id"])
    op.create_table(
        "commission_hold",
        sa.Column("commission_id", sa.Uuid, sa.ForeignKey("commission.id"), primary_key=True),
        sa.Column("cause", sa.String, primary_key=True),
        sa.Column("at", INSTANT, nullable=False),
    )


def downgrade() -> None:
    """Drop what was created."""
    op.drop_column("purchase", "dispute")
    op.drop_column("purchase", "currency")
    op.drop_column("touch", "link_id")
    for column in ("terms_version", "link_id", "partner_id"):
        op.drop_column("attribution", column)
    for table in (
        "commission_hold",
        "commission",
        "payout",
        "payout_run",
        "partner_link",
        "partner_terms",
        "partner",
    ):
        op.drop_table(table)
