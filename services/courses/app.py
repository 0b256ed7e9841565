"""The courses service's table of contents."""

from fastapi import FastAPI

from contracts.billing import OrderDisputed, OrderPaid, OrderRefunded
from contracts.members import (
    MemberChanged,
    MemberErased,
    MemberRegistered,
    MembershipChanged,
    PointsAnswered,
    PointsChanged,
)
from contracts.showcase import EntryChanged, EntryFeatured, EntryPlaced
from kit.app import Service, create_app
from services.courses import (
    access,
    admin_courses,
    admin_lessons,
    admin_live,
    attachment_links,
    attachments,
    attendance,
    categories,
    courses,
    demo,
    enrolments,
    entry,
    erasure,
    imports,
    instructors,
    invite_links,
    learning,
    lesson_requests,
    lesson_works,
    lessons,
    live,
    live_calendar,
    live_events,
    live_feeds,
    live_states,
    media,
    merging,
    next_lesson,
    persons,
    points_payments,
    progress,
    questions,
    ratings,
    reminders,
    replays,
    rooms,
    search,
    series,
    ways,
    works,
)
from services.courses.models import Model
from services.courses.settings import Settings

service = Service(
    name="courses",
    title="Heika courses",
    settings=Settings,
    metadata=Model.metadata,
    routers=[
        categories.router,
        courses.router,
        series.router,
        instructors.router,
        media.router,
        attachment_links.router,
        lessons.router,
        lesson_works.router,
        progress.router,
        ratings.router,
        learning.router,
        # Before those whose path has an id in this place.
        next_lesson.router,
        live.router,
        enrolments.router,
        ways.router,
        invite_links.router,
        invite_links.arrivals_router,
        points_payments.router,
        entry.router,
        entry.webhook_router,
        live_events.router,
        questions.router,
        questions.question_router,
        attendance.router,
        replays.router,
        live_calendar.router,
        live_calendar.mine_router,
        lesson_requests.router,
        imports.router,
        admin_courses.router,
        admin_lessons.router,
        attachments.admin_router,
        series.admin_router,
        instructors.admin_router,
        # Before those whose path has an id in this place.
        ways.admin_router,
        admin_live.router,
        live_states.router,
        attendance.admin_router,
        lesson_requests.admin_router,
    ],
    sandbox_routers=[rooms.sandbox_router],
    handlers=erasure.erasing.handlers(
        merging.merging.handlers(
            {
                MembershipChanged: [access.on_membership_changed, enrolments.on_membership_changed],
                MemberRegistered: [persons.on_member_registered, invite_links.on_member_registered],
                MemberChanged: [persons.on_member_changed],
                MemberErased: [erasure.on_member_erased],
                EntryChanged: [works.on_entry_changed],
                EntryFeatured: [works.on_entry_featured],
                EntryPlaced: [works.on_entry_placed],
                PointsChanged: [points_payments.on_points_changed],
                PointsAnswered: [points_payments.on_points_answered],
                OrderPaid: [access.on_order_paid],
                OrderRefunded: [access.on_order_refunded],
                OrderDisputed: [access.on_order_disputed],
            }
        )
    ),
    due=[
        merging.merging.due,
        erasure.erasing.due,
        search.index_courses,
        attachments.discard_attachments,
        live_states.end_unattended,
        rooms.close_rooms,
        reminders.reminders,
    ],
    start=[
        media.media_ready,
        progress.progress_ready,
        enrolments.seats_ready,
        rooms.rooms_ready,
        live_feeds.feeds_ready,
    ],
    seed=demo.seed,
    listeners=frozenset({"members", "billing", "referrals"}),
    personal=erasure.PERSONAL,
)


def app() -> FastAPI:
    """The service for uvicorn: `uvicorn --factory services.courses.app:app`."""
    return create_app(service)
