"""The showcase service's table of contents."""

from fastapi import FastAPI

from contracts.members import MemberChanged, MemberErased, MemberRegistered
from contracts.referrals import MemberInvited
from kit.app import Service, create_app
from services.showcase import (
    admin_contests,
    best_works,
    cards,
    comments,
    contests,
    discarding,
    entries,
    features,
    gallery,
    integrity,
    leaderboard,
    leaderboard_events,
    lesson_works,
    merging,
    moderation,
    posters,
    quarantine,
    reports,
    settlement,
    sharing,
    signals,
    uploads,
    votes,
)
from services.showcase.models import Model
from services.showcase.seed import seed
from services.showcase.settings import Settings

service = Service(
    name="showcase",
    title="Showcase",
    settings=Settings,
    metadata=Model.metadata,
    routers=[
        contests.api,
        gallery.api,
        entries.api,
        votes.api,
        comments.api,
        leaderboard.api,
        leaderboard_events.api,
        settlement.api,
        integrity.api,
        uploads.api,
        admin_contests.api,
        quarantine.api,
        best_works.api,
        moderation.api,
        reports.api,
        reports.admin_api,
        sharing.api,
        posters.api,
        features.api,
        features.admin_api,
    ],
    handlers=cards.erasing.handlers(
        merging.merging.handlers(
            {
                MemberRegistered: [cards.on_member_registered],
                MemberChanged: [cards.on_member_changed],
                MemberErased: [
                    cards.on_member_erased,
                    discarding.on_member_erased,
                    reports.on_member_erased,
                    sharing.on_member_erased,
                    lesson_works.on_member_erased,
                ],
                MemberInvited: [signals.on_member_invited],
            }
        )
    ),
    due=[merging.merging.due, cards.erasing.due, discarding.due],
    start=[uploads.darkroom, signals.keyed, leaderboard_events.boards_of],
    seed=seed,
    listeners=frozenset({"members", "courses", "referrals"}),
    personal=cards.PERSONAL,
)


def app() -> FastAPI:
    """The service as an ASGI app, for `uvicorn --factory`."""
    return create_app(service)
