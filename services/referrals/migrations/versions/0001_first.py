"""The first tables of referrals."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from kit.migrations import create_kit_tables_1, drop_kit_tables_1

revision = "0001"
down_revision = None

TABLES = (
    "reward_budget",
    "reward",
    "attribution",
    "touch",
    "referral_rule",
    "coupon",
    "campaign",
    "invite_code",
    "purchase",
    "device",
    "member_card",
    "channel",
)

# A newcomer's origin decides who is paid, so the first payment freezes it whatever code runs.
FIXED = """
CREATE FUNCTION attribution_is_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the origin of member % is fixed', OLD.member_id;
END $$
"""
FIXED_TRIGGER = """
CREATE TRIGGER attribution_is_fixed BEFORE UPDATE OR DELETE ON attribution
FOR EACH ROW WHEN (OLD.fixed_at IS NOT NULL) EXECUTE FUNCTION attribution_is_fixed()
"""


def upgrade() -> None:
    """Create them."""
    create_kit_tables_1()
    _people()
    _coupons()
    _origins()
    op.execute(FIXED)
    op.execute(FIXED_TRIGGER)


def downgrade() -> None:
    """Drop them."""
    for table in TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION attribution_is_fixed")
    drop_kit_tables_1()


def _people() -> None:
    """Members as referrals knows them, and their invite codes."""
    op.create_table(
        "channel",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("retired_at", nullable=True),
        sa.PrimaryKeyConstraint("code", name="channel_pkey"),
    )
    op.create_table(
        "device",
        sa.Column("visitor_id", sa.String, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("visitor_id", "member_id", name="device_pkey"),
    )
    op.create_index("device_member_id_idx", "device", ["member_id"])
    op.create_table(
        "invite_code",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        _instant("created_at"),
        sa.PrimaryKeyConstraint("code", name="invite_code_pkey"),
        sa.UniqueConstraint("member_id", name="invite_code_member_id_key"),
    )
    op.create_table(
        "member_card",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("nickname", sa.String, nullable=False),
        _instant("registered_at", nullable=True),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("labels", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("phone_hash", sa.String, nullable=True),
        sa.Column("address_prefix", sa.String, nullable=True),
        sa.Column("visitor_id", sa.String, nullable=True),
        _instant("changed_at", nullable=True),
        _instant("erased_at", nullable=True),
        _instant("lesson_at", nullable=True),
        _instant("paid_at", nullable=True),
        _instant("membership_paid_at", nullable=True),
        sa.PrimaryKeyConstraint("member_id", name="member_card_pkey"),
    )
    op.create_index(
        "member_card_phone_hash_idx", "member_card", ["phone_hash"], postgresql_where=sa.text("phone_hash IS NOT NULL")
    )
    op.create_table(
        "purchase",
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("refunded", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=True),
        _instant("paid_at"),
        sa.PrimaryKeyConstraint("order_id", name="purchase_pkey"),
    )
    op.create_index("purchase_member_id_idx", "purchase", ["member_id"])
    op.create_index("purchase_paid_at_idx", "purchase", ["paid_at"])
    op.create_index(
        "purchase_fingerprint_idx",
        "purchase",
        ["fingerprint"],
        postgresql_where=sa.text("fingerprint IS NOT NULL"),
    )


def _coupons() -> None:
    """Campaigns, coupons and the rules that pay with them."""
    op.create_table(
        "campaign",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("code", sa.String, nullable=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("min_amount", sa.BigInteger, nullable=False),
        sa.Column("plan_codes", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.BigInteger, nullable=False),
        sa.Column("per_member", sa.Integer, nullable=False),
        _instant("starts_at"),
        _instant("ends_at", nullable=True),
        sa.Column("valid_days", sa.Integer, nullable=True),
        sa.Column("audience", sa.String, nullable=False),
        sa.Column("claimable", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _instant("created_at"),
        _instant("deleted_at", nullable=True),
        sa.CheckConstraint("kind IN ('percent', 'amount')", name="campaign_kind_check"),
        sa.CheckConstraint("claimed BETWEEN 0 AND total", name="campaign_claimed_check"),
        sa.CheckConstraint("ends_at IS NOT NULL OR valid_days IS NOT NULL", name="campaign_ends_check"),
        sa.PrimaryKeyConstraint("id", name="campaign_pkey"),
    )
    op.create_index(
        "campaign_code_key", "campaign", ["code"], unique=True, postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.create_table(
        "coupon",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("campaign_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("min_amount", sa.BigInteger, nullable=False),
        sa.Column("plan_codes", ARRAY(sa.String), server_default=sa.text("'{}'"), nullable=False),
        _instant("issued_at"),
        _instant("ends_at"),
        sa.Column("state", sa.String, nullable=False),
        _instant("state_at"),
        sa.Column("state_event_id", sa.Uuid, nullable=True),
        _instant("revoked_at", nullable=True),
        sa.CheckConstraint("state IN ('issued', 'reserved', 'redeemed')", name="coupon_state_check"),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="coupon_campaign_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="coupon_pkey"),
        sa.UniqueConstraint("campaign_id", "member_id", "ordinal", name="coupon_campaign_member_ordinal_key"),
    )
    op.create_index("coupon_member_id_idx", "coupon", ["member_id", "issued_at", "id"])
    op.create_table(
        "referral_rule",
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("newcomer_amount", sa.BigInteger, nullable=False),
        sa.Column("inviter_amount", sa.BigInteger, nullable=False),
        sa.Column("inviter_days", sa.Integer, nullable=False),
        sa.Column("min_amount", sa.BigInteger, nullable=False),
        sa.Column("valid_days", sa.Integer, nullable=False),
        sa.Column("monthly_cap", sa.Integer, nullable=False),
        sa.Column("window_days", sa.Integer, nullable=False),
        sa.Column("newcomer_campaign_id", sa.Uuid, nullable=True),
        sa.Column("inviter_campaign_id", sa.Uuid, nullable=True),
        _instant("starts_at"),
        sa.Column("created_by", sa.Uuid, nullable=True),
        sa.ForeignKeyConstraint(
            ["inviter_campaign_id"], ["campaign.id"], name="referral_rule_inviter_campaign_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["newcomer_campaign_id"], ["campaign.id"], name="referral_rule_newcomer_campaign_id_fkey"
        ),
        sa.PrimaryKeyConstraint("version", name="referral_rule_pkey"),
    )


def _origins() -> None:
    """Touches, what they led to, and what that earned."""
    op.create_table(
        "reward_budget",
        sa.Column("inviter_id", sa.Uuid, nullable=False),
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("inviter_id", "month", name="reward_budget_pkey"),
    )
    op.create_table(
        "touch",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("visitor_id", sa.String, nullable=True),
        sa.Column("member_id", sa.Uuid, nullable=True),
        sa.Column("invite_code", sa.String, nullable=True),
        sa.Column("inviter_id", sa.Uuid, nullable=True),
        sa.Column("channel_code", sa.String, nullable=True),
        _instant("at"),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=True),
        sa.Column("newcomer_id", sa.Uuid, nullable=True),
        sa.CheckConstraint("outcome IN ('open', 'won', 'lost')", name="touch_outcome_check"),
        sa.ForeignKeyConstraint(["channel_code"], ["channel.code"], name="touch_channel_code_fkey"),
        sa.PrimaryKeyConstraint("id", name="touch_pkey"),
    )
    op.create_index("touch_channel_code_at_idx", "touch", ["channel_code", "at"])
    op.create_index(
        "touch_newcomer_id_idx", "touch", ["newcomer_id"], postgresql_where=sa.text("newcomer_id IS NOT NULL")
    )
    op.create_index("touch_visitor_id_idx", "touch", ["visitor_id", "at"], postgresql_where=sa.text("outcome = 'open'"))
    op.create_table(
        "attribution",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("touch_id", sa.Uuid, nullable=False),
        sa.Column("inviter_id", sa.Uuid, nullable=True),
        sa.Column("channel_code", sa.String, nullable=True),
        sa.Column("rule_version", sa.Integer, nullable=True),
        _instant("bound_at"),
        _instant("fixed_at", nullable=True),
        sa.CheckConstraint("inviter_id IS DISTINCT FROM member_id", name="attribution_not_self_check"),
        sa.ForeignKeyConstraint(["channel_code"], ["channel.code"], name="attribution_channel_code_fkey"),
        sa.ForeignKeyConstraint(["rule_version"], ["referral_rule.version"], name="attribution_rule_version_fkey"),
        sa.ForeignKeyConstraint(["touch_id"], ["touch.id"], name="attribution_touch_id_fkey"),
        sa.PrimaryKeyConstraint("member_id", name="attribution_pkey"),
        sa.UniqueConstraint("touch_id", name="attribution_touch_id_key"),
    )
    op.create_index("attribution_channel_code_idx", "attribution", ["channel_code", "bound_at"])
    op.create_index("attribution_inviter_id_idx", "attribution", ["inviter_id", "bound_at", "member_id"])
    op.create_table(
        "reward",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("inviter_id", sa.Uuid, nullable=False),
        sa.Column("newcomer_id", sa.Uuid, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=True),
        sa.Column("coupon_id", sa.Uuid, nullable=True),
        sa.Column("days", sa.Integer, nullable=True),
        sa.Column("rule_version", sa.Integer, nullable=False),
        _instant("at"),
        sa.CheckConstraint("cause IN ('first_lesson', 'first_payment')", name="reward_cause_check"),
        sa.CheckConstraint("status IN ('granted', 'refused')", name="reward_status_check"),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupon.id"], name="reward_coupon_id_fkey"),
        sa.ForeignKeyConstraint(["rule_version"], ["referral_rule.version"], name="reward_rule_version_fkey"),
        sa.PrimaryKeyConstraint("id", name="reward_pkey"),
        sa.UniqueConstraint("newcomer_id", "cause", name="reward_newcomer_cause_key"),
    )
    op.create_index("reward_inviter_id_idx", "reward", ["inviter_id", "at"])


def _instant(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
