"""What showcase tells: works that were approved, places they took, what was written under them, who helped to judge."""

from typing import Final, Literal
from uuid import UUID

from pydantic import AwareDatetime

from kit.audit import AdminActed
from kit.events import Event

TOKEN_LENGTH: Final = 12
"""Of a link to a work: longer than every invitation code, so that no token is ever one of those, too."""


class EntryApproved(Event, type="showcase.entry.approved"):
    """A work was approved for its contest; told once for each entry."""

    entry_id: UUID
    contest_id: UUID
    member_id: UUID
    lesson_id: UUID | None = None
    approved_at: AwareDatetime


class EntryChanged(Event, type="showcase.entry.changed"):
    """A work made from a lesson came on show or left it; the whole picture, a listener ignores one older than it holds."""

    entry_id: UUID
    contest_id: UUID
    member_id: UUID
    lesson_id: UUID
    title: str
    thumbnail_url: str | None = None
    on_show: bool


class EntryShared(Event, type="showcase.entry.shared"):
    """A member took a link to a work to share; `token` in it credits them like an invitation code of theirs."""

    token: str
    entry_id: UUID
    member_id: UUID


class EntryPlaced(Event, type="showcase.entry.placed"):
    """A contest was settled and this work came among the first ten."""

    entry_id: UUID
    contest_id: UUID
    member_id: UUID
    rank: int
    settled_at: AwareDatetime


class PrizeWon(Event, type="showcase.prize.won"):
    """A settled contest's prize goes to the author of a work; told once for each work that wins one.

    `value` is so many days or points, or, for a coupon, so many fen off or the campaign, by id or code, that it is of.
    """

    prize_id: UUID
    contest_id: UUID
    entry_id: UUID
    member_id: UUID
    rank: int
    title: str
    reward: Literal["membership_days", "points", "coupon"]
    value: int | str
    won_at: AwareDatetime


class CommentPosted(Event, type="showcase.comment.posted"):
    """A member wrote under a work."""

    comment_id: UUID
    entry_id: UUID
    member_id: UUID
    posted_at: AwareDatetime


class EntryFeatured(Event, type="showcase.entry.featured"):
    """A work was featured by the community's editors; told when it is first published. `member_id` is its author."""

    feature_id: UUID
    entry_id: UUID
    member_id: UUID
    featured_at: AwareDatetime


class ReportUpheld(Event, type="showcase.report.upheld"):
    """An admin found that somebody's report of a work or a comment was right; `member_id` is who reported."""

    report_id: UUID
    member_id: UUID
    upheld_at: AwareDatetime


class ShowcaseAdminActed(AdminActed, type="showcase.admin.acted"):
    """An admin acted in showcase; members keeps the audit log."""
