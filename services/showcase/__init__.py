"""Showcase: members show what they made, others vote, and each contest ends with results.

Owns: contest, upload, entry, vote, tally, comment, result, feature, member card.
Emits: EntryApproved, EntryFeatured, EntryPlaced, CommentPosted.
Listens: MemberRegistered, MemberChanged, MemberErased, MemberMerged.
"""
