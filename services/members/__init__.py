"""Members: who people are, how they sign in, and how long their membership lasts.

Owns: member, identity, session, signing key, admin, membership segment, check-in, points, notice, audit.
Emits: MemberRegistered, MemberChanged, MemberErased, MemberMerged, MembershipChanged, PointsChanged,
PointsAnswered.
Listens: OrderPaid, OrderRefunded, OrderDisputed, CodeRedeemed, PlanChanged, SubscriptionChanged, BillingNoticeWanted,
CoursesNoticeWanted, PointsWanted, PointsReturned, RewardGranted, RewardRevoked, PartnerChanged, LessonCompleted,
QuestionAsked, QuestionUpvoted, QuestionUpvoteUndone, WorkFiled, EntryApproved, EntryPlaced, EntryFeatured, CommentPosted,
PrizeWon, ReportUpheld.
"""
