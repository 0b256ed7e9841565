"""Notices: what a service wants a person to be told; members knows how to reach them, sends it once and keeps the proof."""

from uuid import UUID

from pydantic import AwareDatetime

from kit.events import Event


class NoticeWanted(Event):
    """A person must be told something; each teller has a class of its own.

    `reference` names the occasion: whatever is told twice under one reference reaches the person once. The body is in
    both languages, whole sentences, without a greeting; the person's own language is chosen where it is sent.
    """

    member_id: UUID
    kind: str
    reference: str
    body_zh: str
    body_en: str
    wanted_at: AwareDatetime


class BillingNoticeWanted(NoticeWanted, type="billing.notice.wanted"):
    """Billing wants a member told of a renewal, a charge, or an end.

    `kind` is one of renewal_upcoming, renewal_paid, renewal_failed, renewal_action_required, renewal_lapsed,
    renewal_stopped, renewal_canceled, renewal_resumed, card_updated.
    """


class CoursesNoticeWanted(NoticeWanted, type="courses.notice.wanted"):
    """Courses wants a member told of a live lesson on whose list they are.

    `kind` is one of lesson_rescheduled, lesson_canceled, lesson_tomorrow, lesson_soon, lesson_seat, lesson_wanted.
    """
