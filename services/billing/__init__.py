"""Billing: what is sold, who ordered it, what was paid, and where every fen went.

Owns: plan, course price, canceled lesson, order, gift, redeem code, coupon use, subscription, payment, refund, dispute, ledger,
revenue schedule, reconciliation, invoice request, provider event.
Emits: OrderPaid, OrderClosed, OrderRefunded, OrderDisputed, CodeRedeemed, PlanChanged, SubscriptionChanged,
CouponReserved, CouponReleased, CouponRedeemed, BillingNoticeWanted.
Listens: MembershipChanged, MemberErased, MemberMerged, CouponRevoked, CourseChanged, LiveLessonCanceled.
"""
