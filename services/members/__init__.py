"""Members: who people are, how they sign in, and how long their membership lasts.

Owns: member, identity, session, signing key, admin, membership segment, check-in, points, notice, audit.
Emits: MemberRegistered, MemberChanged, MemberErased, MemberMerged, MembershipChanged.
Listens: OrderPaid, OrderRefunded, OrderDisputed, CodeRedeemed, PlanChanged, SubscriptionChanged, BillingNoticeWanted,
    RewardGranted, RewardRevoked, LessonCompleted, QuestionAsked, QuestionUpvoted, EntryApproved, EntryPlaced, EntryFeatured, CommentPosted,
    ReportUpheld.
"""
