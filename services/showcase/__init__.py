"""Showcase: members show what they made, others vote, and each contest ends with results.

Owns: contest, upload, entry, vote, tally, quarantine, comment, settlement, result, feature, member card.
Emits: EntryApproved, EntryFeatured, EntryPlaced, PrizeWon, CommentPosted.
Listens: MemberRegistered, MemberInvited, MemberChanged, MemberErased, MemberMerged.
"""
