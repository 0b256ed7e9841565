"""What showcase tells: works that were approved, and places they took."""

from uuid import UUID

from pydantic import AwareDatetime

from kit.audit import AdminActed
from kit.events import Event


class EntryApproved(Event, type="showcase.entry.approved"):
    """A work was approved for its contest; told once for each entry."""

    entry_id: UUID
    contest_id: UUID
    member_id: UUID
    lesson_id: UUID | None = None
    approved_at: AwareDatetime


class EntryPlaced(Event, type="showcase.entry.placed"):
    """A contest was settled and this work came among the first ten."""

    entry_id: UUID
    contest_id: UUID
    member_id: UUID
    rank: int
    settled_at: AwareDatetime


class ShowcaseAdminActed(AdminActed, type="showcase.admin.acted"):
    """An admin acted in showcase; members keeps the audit log."""
