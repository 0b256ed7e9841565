"""Showcase: members show what they made, others vote, and each contest ends with results.

Owns: contest, upload, entry, vote, tally, quarantine, comment, report, share link, settlement,
result, feature, member card.
Emits: EntryApproved, EntryChanged, EntryFeatured, EntryPlaced, EntryShared, PrizeWon, CommentPosted, ReportUpheld.
Listens: MemberRegistered, MemberInvited, MemberChanged, MemberErased, MemberMerged.
"""
