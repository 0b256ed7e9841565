"""Referrals: where people come from, the coupons they hold, and what inviters earn.

Owns: channel, touch, attribution, invite code, share link, coupon campaign, coupon, coupon of the month, referral rule, reward,
member card.
Emits: CouponIssued, CouponRevoked, MemberInvited, RewardGranted, RewardRevoked.
Listens: MemberRegistered, MemberChanged, MemberErased, MemberMerged, MembershipChanged, LessonCompleted, OrderPaid, OrderRefunded,
CouponReserved, CouponReleased, CouponRedeemed, EntryShared, PrizeWon.
"""
