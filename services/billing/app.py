"""The billing service: its routers, what it listens to, and what it does by itself."""

from fastapi import FastAPI

from contracts.courses import CourseChanged, LiveLessonCanceled
from contracts.members import MemberChanged, MemberErased, MembershipChanged
from contracts.referrals import CommissionAccrued, CommissionReversed, CommissionVoided, CouponRevoked, PayoutPaid
from kit.app import Service, create_app
from services.billing import (
    admin_disputes,
    admin_invoices,
    admin_orders,
    admin_plans,
    admin_subscriptions,
    canceled_lessons,
    checkout,
    code_batches,
    codes,
    commissions,
    coupons,
    course_sales,
    disputes,
    erasure,
    invoices,
    ledger,
    member_time,
    merging,
    order_events,
    ordering,
    orders,
    plans,
    provider_balance,
    provider_letters,
    quotes,
    receipts,
    recognition,
    reconciliations,
    reconciling,
    redemptions,
    refunding,
    refunds,
    renewal_charges,
    renewals,
    revenue,
    subscription_owners,
    subscription_pages,
    subscriptions,
    webhooks,
)
from services.billing.models import Model
from services.billing.provider import payment_provider
from services.billing.sandbox import cashier, courier, faults, payers
from services.billing.sandbox import disputes as sandbox_disputes
from services.billing.sandbox.courier import running_courier
from services.billing.seed import seed
from services.billing.settings import Settings

service = Service(
    name="billing",
    title="Heika billing",
    settings=Settings,
    metadata=Model.metadata,
    routers=[
        plans.router,
        admin_plans.router,
        quotes.router,
        ordering.router,
        orders.router,
        order_events.router,
        refunds.router,
        receipts.router,
        invoices.router,
        redemptions.router,
        webhooks.router,
        subscriptions.router,
        admin_orders.router,
        admin_disputes.router,
        admin_subscriptions.router,
        admin_invoices.router,
        code_batches.router,
        ledger.router,
        reconciliations.router,
        revenue.router,
    ],
    sandbox_routers=[cashier.router, faults.router, payers.router, sandbox_disputes.router],
    handlers=erasure.erasing.handlers(
        merging.merging.handlers(
            {
                MemberChanged: [subscription_owners.on_member_changed],
                MemberErased: [subscription_owners.on_member_erased, erasure.on_member_erased],
                MembershipChanged: [
                    member_time.on_membership_changed,
                    recognition.on_membership_changed,
                    renewals.on_membership_changed,
                ],
                CouponRevoked: [coupons.on_coupon_revoked],
                CommissionAccrued: [commissions.on_commission_accrued],
                CommissionVoided: [commissions.on_commission_voided],
                CommissionReversed: [commissions.on_commission_reversed],
                PayoutPaid: [commissions.on_payout_paid],
                CourseChanged: [course_sales.on_course_changed],
                LiveLessonCanceled: [canceled_lessons.on_live_lesson_canceled],
            }
        )
    ),
    due=[
        merging.merging.due,
        erasure.erasing.due,
        courier.due,
        webhooks.due,
        provider_letters.due,
        checkout.due,
        canceled_lessons.due,
        refunding.due,
        disputes.due,
        recognition.due,
        provider_balance.due,
        reconciling.due,
        renewals.due,
        renewal_charges.due,
        subscription_pages.due,
    ],
    seed=seed,
    start=[codes.code_key, webhooks.webhook_handling, running_courier, payment_provider],
    listeners=frozenset({"members", "courses", "referrals"}),
    personal=erasure.PERSONAL,
)


def app() -> FastAPI:
    """The service as uvicorn runs it."""
    return create_app(service)
