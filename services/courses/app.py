"""The courses service's table of contents."""

from fastapi import FastAPI

from contracts.billing import OrderDisputed, OrderPaid, OrderRefunded
from contracts.members import MemberErased, MembershipChanged
from kit.app import Service, create_app
from services.courses import (
    access,
    admin_courses,
    admin_lessons,
    admin_live,
    categories,
    courses,
    demo,
    enrolments,
    erasure,
    imports,
    learning,
    lessons,
    live,
    media,
    merging,
    ratings,
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
        media.router,
        lessons.router,
        ratings.router,
        learning.router,
        live.router,
        enrolments.router,
        imports.router,
        admin_courses.router,
        admin_lessons.router,
        admin_live.router,
    ],
    handlers=merging.merging.handlers(
        {
            MembershipChanged: [access.on_membership_changed],
            MemberErased: [erasure.on_member_erased],
            OrderPaid: [access.on_order_paid],
            OrderRefunded: [access.on_order_refunded],
            OrderDisputed: [access.on_order_disputed],
        }
    ),
    due=[merging.merging.due, admin_live.end_unattended],
    start=[media.media_ready, enrolments.seats_ready],
    seed=demo.seed,
    listeners=frozenset({"members", "billing", "referrals"}),
    personal=erasure.PERSONAL,
)


def app() -> FastAPI:
    """The service for uvicorn: `uvicorn --factory services.courses.app:app`."""
    return create_app(service)
