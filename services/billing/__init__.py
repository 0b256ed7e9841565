"""Billing: what is sold, who ordered it, what was paid, and where every fen went.

Owns: plan, course price, order, coupon use, payment, refund, ledger, provider event.
Emits: OrderPaid, OrderClosed, OrderRefunded, CouponReserved, CouponReleased, CouponRedeemed.
Listens: MembershipChanged, MemberErased, MemberMerged, CouponRevoked, CourseChanged.
"""
