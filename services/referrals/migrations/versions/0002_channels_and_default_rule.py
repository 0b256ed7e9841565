"""The community's sixteen channels and the default invitation rule, which exist from the start."""

from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0002"
down_revision = "0001"

START = datetime(2026, 1, 1, tzinfo=UTC)
NEWCOMER = UUID("019b76da-a800-7000-8000-000000000001")
INVITER = UUID("019b76da-a800-7000-8000-000000000002")

CHANNELS = {
    "wechat_official": "微信公众号",
    "wechat_video": "微信视频号",
    "wechat_group": "微信社群",
    "wecom": "企业微信",
    "mini_program": "微信小程序",
    "h5": "官网 H5",
    "app": "烘焙课堂 App",
    "douyin": "抖音",
    "kuaishou": "快手",
    "xiaohongshu": "小红书",
    "bilibili": "哔哩哔哩",
    "weibo": "微博",
    "zhihu": "知乎",
    "toutiao": "今日头条",
    "xiachufang": "下厨房",
    "ximalaya": "喜马拉雅",
}

INSTANT = sa.DateTime(timezone=True)
channel = sa.table(
    "channel", sa.column("code"), sa.column("name"), sa.column("version"), sa.column("created_at", INSTANT)
)
campaign = sa.table(
    "campaign",
    sa.column("id", sa.Uuid),
    sa.column("title"),
    sa.column("kind"),
    sa.column("value", sa.BigInteger),
    sa.column("min_amount", sa.BigInteger),
    sa.column("plan_codes", ARRAY(sa.String)),
    sa.column("total", sa.BigInteger),
    sa.column("claimed", sa.BigInteger),
    sa.column("per_member", sa.Integer),
    sa.column("starts_at", INSTANT),
    sa.column("valid_days", sa.Integer),
    sa.column("audience"),
    sa.column("claimable", sa.Boolean),
    sa.column("version", sa.Integer),
    sa.column("created_at", INSTANT),
)
rule = sa.table(
    "referral_rule",
    *(sa.column(name, sa.Integer) for name in ("version", "inviter_days", "valid_days", "monthly_cap", "window_days")),
    *(sa.column(name, sa.BigInteger) for name in ("newcomer_amount", "inviter_amount", "min_amount")),
    sa.column("newcomer_campaign_id", sa.Uuid),
    sa.column("inviter_campaign_id", sa.Uuid),
    sa.column("starts_at", INSTANT),
)
COUPONS = {
    "kind": "amount",
    "value": 500,
    "min_amount": 1000,
    "plan_codes": [],
    "total": 100_000_000,
    "claimed": 0,
    "starts_at": START,
    "valid_days": 90,
    "claimable": False,
    "version": 1,
    "created_at": START,
}


def upgrade() -> None:
    """Insert them."""
    op.bulk_insert(
        channel,
        [{"code": code, "name": name, "version": 1, "created_at": START} for code, name in CHANNELS.items()],
    )
    newcomer = {"id": NEWCOMER, "title": "新人见面礼", "per_member": 1, "audience": "new_members"}
    inviter = {"id": INVITER, "title": "邀请好友奖励", "per_member": 1_000_000, "audience": "everyone"}
    op.bulk_insert(campaign, [COUPONS | newcomer, COUPONS | inviter])
    op.bulk_insert(
        rule,
        [
            {
                "version": 1,
                "newcomer_amount": 500,
                "inviter_amount": 500,
                "inviter_days": 7,
                "min_amount": 1000,
                "valid_days": 90,
                "monthly_cap": 20,
                "window_days": 30,
                "newcomer_campaign_id": NEWCOMER,
                "inviter_campaign_id": INVITER,
                "starts_at": START,
            }
        ],
    )


def downgrade() -> None:
    """Take them out again; refused by foreign keys once they were used."""
    op.execute("DELETE FROM referral_rule WHERE version = 1")
    op.execute(campaign.delete().where(campaign.c.id.in_([NEWCOMER, INVITER])))
    op.execute(channel.delete().where(channel.c.code.in_(CHANNELS)))
