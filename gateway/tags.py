"""The groups of the documentation pages, by who works with them: admins first, because they work there."""

from typing import Final

AUDIENCES: Final[dict[str, dict[str, str]]] = {
    "管理员 / admin": {
        "admin plans": "管理员：套餐与价格 / admins: plans and prices",
        "admin orders": "管理员：订单与退款 / admins: orders and refunds",
        "admin disputes": "管理员：付款争议 / admins: disputed payments",
        "admin codes": "管理员：兑换码批次 / admins: batches of redeem codes",
        "admin invoices": "管理员：发票申请 / admins: invoice requests",
        "admin subscriptions": "管理员：自动续费 / admins: auto-renewal",
        "admin ledger": "管理员：复式账本、对账与收入 / admins: the double-entry ledger, reconciliation, revenue",
        "admin members": "管理员：会员、赠送时长、讲师资格与审计 / admins: members, comps, instructors' papers, the audit log",
        "admin courses": "管理员：课程与课时 / admins: courses and lessons",
        "admin live lessons": "管理员：直播课 / admins: live lessons",
        "admin coupons": "管理员：优惠券活动 / admins: coupon campaigns",
        "admin referrals": "管理员：渠道、推荐规则与作弊案件 / admins: channels, referral rules, fraud cases",
        "admin partners": "管理员：合作伙伴与佣金结算 / admins: partners and their payouts",
        "admin contests": "管理员：比赛、作品审核与结算 / admins: contests, moderation, settlement",
        "admin sign-in": "管理员：动态口令 / admins: one-time passwords",
    },
    "应用 / app": {
        "home": "首页与个人面板 / the home page and the dashboard",
        "sign-in": "登录、刷新与退出 / sign in, refresh, log out",
        "members": "个人资料、设备、签到与积分 / profile, devices, check-ins, points",
        "membership": "会员期限及其每一段 / until when, and every piece of it",
        "certificates": "讲师资格申请 / becoming an instructor",
        "plans": "黑卡套餐 / the black cards on sale",
        "orders": "下单、支付与收据 / quotes, orders, receipts",
        "subscription": "自动续费 / auto-renewal",
        "refunds": "退款 / refunds",
        "redemptions": "兑换礼品码与兑换码 / redeeming gifts and codes",
        "courses": "课程目录 / the catalogue",
        "lessons": "观看、进度与评分 / watching, progress, ratings",
        "live lessons": "直播日程与报名 / the live calendar and its seats",
        "coupons": "领取与查看优惠券 / claiming and holding coupons",
        "invitations": "邀请与来源 / invitations and where visitors come from",
        "contests": "比赛、排行榜与结果 / contests, leaderboards, results",
        "entries": "参赛作品与评论 / works and comments",
        "features": "推荐作品与作者访谈 / featured works and interviews",
        "votes": "投票 / votes",
        "uploads": "上传图片 / pictures",
    },
    "合作伙伴 / partner": {
        "partner": "合作伙伴：链接、推荐、佣金与结算 / partners: links, referrals, commissions, payouts",
        "partner webhooks": "合作伙伴：接收事件通知 / partners: webhooks, their log and replays",
    },
    "通知 / webhooks": {
        "webhooks": "支付与直播服务商的通知 / what the payment and the video provider tell",
    },
    "沙盒 / sandbox": {
        "sandbox": "仅沙盒：验证码、收银台与时钟 / the sandbox only: codes, the cashier, the clock",
    },
    "运维 / operations": {
        "health": "存活与就绪 / alive and ready",
    },
}
"""Each group's name and description, by audience; ReDoc shows the audiences as headings."""

TAGS: Final = {name: said for groups in AUDIENCES.values() for name, said in groups.items()}
