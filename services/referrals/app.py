"""The referrals service: its routers, the events it listens to, its seed."""

from fastapi import FastAPI

from contracts.billing import CouponRedeemed, CouponReleased, CouponReserved, OrderDisputed, OrderPaid, OrderRefunded
from contracts.courses import LessonCompleted
from contracts.members import MemberChanged, MemberErased, MemberRegistered, MembershipChanged
from contracts.showcase import EntryShared, PrizeWon
from kit.app import Service, create_app
from services.referrals import (
    admin_campaigns,
    admin_partners,
    attributions,
    bulk_grants,
    cards,
    channels,
    claims,
    commission_states,
    coupons,
    former,
    fraud_cases,
    giving,
    grants,
    invites,
    landing,
    merging,
    monthly_coupons,
    my_rewards,
    origins,
    partner_links,
    partners,
    payouts,
    poster,
    prizes,
    rewards,
    rules,
    share_links,
    share_switches,
    touch_upkeep,
    touches,
    webhook_document,
    webhook_endpoints,
    webhook_log,
    webhook_sending,
    webhook_upkeep,
)
from services.referrals.models import Model
from services.referrals.seed import seed
from services.referrals.settings import Settings

service = Service(
    name="referrals",
    title="Heika referrals",
    settings=Settings,
    metadata=Model.metadata,
    routers=[
        claims.routes,
        coupons.routes,
        monthly_coupons.routes,
        invites.routes,
        poster.routes,
        landing.routes,
        my_rewards.routes,
        touches.routes,
        admin_campaigns.routes,
        grants.routes,
        bulk_grants.routes,
        channels.routes,
        attributions.routes,
        rules.routes,
        share_switches.routes,
        admin_partners.routes,
        payouts.routes,
        partners.routes,
        partner_links.routes,
        payouts.partner_routes,
        webhook_endpoints.routes,
        fraud_cases.routes,
        webhook_log.routes,
    ],
    handlers=cards.erasing.handlers(
        merging.merging.handlers(
            {
                MemberRegistered: [origins.on_member_registered],
                MemberChanged: [cards.on_member_changed],
                MemberErased: [cards.on_member_erased, share_links.on_member_erased],
                MembershipChanged: [monthly_coupons.on_membership_changed],
                LessonCompleted: [rewards.on_lesson_completed],
                OrderPaid: [rewards.on_order_paid],
                OrderRefunded: [rewards.on_order_refunded],
                OrderDisputed: [rewards.on_order_disputed],
                CouponReserved: [coupons.on_coupon_reserved],
                CouponReleased: [coupons.on_coupon_released],
                CouponRedeemed: [coupons.on_coupon_redeemed],
                EntryShared: [share_links.on_entry_shared],
                PrizeWon: [prizes.on_prize_won],
            }
        )
    ),
    due=[
        merging.merging.due,
        cards.erasing.due,
        giving.due,
        former.due,
        commission_states.due,
        webhook_sending.due,
        *webhook_upkeep.due,
        touch_upkeep.due,
    ],
    start=[claims.claims_writer, webhook_sending.webhook_sender],
    seed=seed,
    listeners=frozenset({"members", "billing", "showcase"}),
    personal=cards.PERSONAL,
    webhooks=webhook_document.webhooks,
)


def app() -> FastAPI:
    """For `uvicorn --factory services.referrals.app:app`."""
    return create_app(service)
