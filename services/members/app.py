"""The members service: its routers, what it listens to, and what it does by itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from contracts.billing import (
    BillingAdminActed,
    CodeRedeemed,
    OrderDisputed,
    OrderPaid,
    OrderRefunded,
    PlanChanged,
    SubscriptionChanged,
)
from contracts.courses import (
    CoursesAdminActed,
    LessonCompleted,
    PointsReturned,
    PointsWanted,
    QuestionAsked,
    QuestionUpvoted,
    QuestionUpvoteUndone,
    WorkFiled,
)
from contracts.notices import BillingNoticeWanted, CoursesNoticeWanted
from contracts.referrals import PartnerChanged, ReferralsAdminActed, RewardGranted, RewardRevoked
from contracts.showcase import (
    CommentPosted,
    EntryApproved,
    EntryFeatured,
    EntryPlaced,
    PrizeWon,
    ReportUpheld,
    ShowcaseAdminActed,
)
from kit.app import Due, Runtime, Service, create_app
from services.members import (
    audit,
    benefits,
    certificates,
    check_ins,
    clients,
    directory,
    evidence,
    export,
    grants,
    impersonation,
    importing,
    imports,
    listing,
    make_ups,
    membership,
    notices,
    oauth,
    otp,
    phone_binding,
    points,
    prizes,
    profile,
    promotions,
    renewals,
    retelling,
    roles,
    rotating,
    sessions,
    sign_in,
    signing,
    sources,
    spending,
    tiers,
    tokens,
    totp,
    wechat,
)
from services.members.admins import create_admin
from services.members.models import Model
from services.members.revocations import mirror_revocations
from services.members.settings import Settings


@asynccontextmanager
async def _start(rt: Runtime) -> AsyncIterator[None]:
    """Have a key to sign with and an admin to begin with."""
    await signing.refresh_keys(rt)
    settings: Settings = rt.settings
    if settings.admin_email and settings.admin_password:
        await create_admin(rt, settings.admin_email, settings.admin_password)
    yield


service = Service(
    name="members",
    title="Heika members",
    settings=Settings,
    metadata=Model.metadata,
    routers=[
        membership.api,
        otp.api,
        sign_in.api,
        wechat.api,
        oauth.api,
        tokens.api,
        totp.api,
        signing.api,
        profile.api,
        phone_binding.api,
        sessions.api,
        notices.api,
        check_ins.api,
        make_ups.api,
        points.api,
        tiers.api,
        imports.api,
        directory.api,
        listing.api,
        promotions.api,
        roles.api,
        grants.api,
        notices.admin_api,
        certificates.api,
        impersonation.api,
        audit.api,
    ],
    sandbox_routers=[otp.sandbox_api, wechat.sandbox_api, notices.sandbox_api],
    handlers={
        OrderPaid: [sources.on_order_paid],
        OrderRefunded: [sources.on_order_refunded],
        OrderDisputed: [sources.on_order_disputed],
        CodeRedeemed: [sources.on_code_redeemed],
        PlanChanged: [benefits.on_plan_changed],
        SubscriptionChanged: [renewals.on_subscription_changed],
        BillingNoticeWanted: [notices.on_notice_wanted],
        CoursesNoticeWanted: [notices.on_notice_wanted],
        PointsWanted: [spending.on_points_wanted],
        PointsReturned: [spending.on_points_returned],
        PartnerChanged: [clients.on_partner_changed],
        RewardGranted: [sources.on_reward_granted],
        RewardRevoked: [sources.on_reward_revoked],
        LessonCompleted: [evidence.on_lesson_completed],
        EntryApproved: [evidence.on_entry_approved],
        WorkFiled: [evidence.on_work_filed],
        EntryPlaced: [evidence.on_entry_placed],
        PrizeWon: [prizes.on_prize_won],
        EntryFeatured: [evidence.on_entry_featured],
        CommentPosted: [evidence.on_comment_posted],
        ReportUpheld: [evidence.on_report_upheld],
        QuestionAsked: [evidence.on_question_asked],
        QuestionUpvoted: [evidence.on_question_upvoted],
        QuestionUpvoteUndone: [evidence.on_question_upvote_undone],
        BillingAdminActed: [audit.on_admin_acted],
        CoursesAdminActed: [audit.on_admin_acted],
        ReferralsAdminActed: [audit.on_admin_acted],
        ShowcaseAdminActed: [audit.on_admin_acted],
    },
    due=[
        Due("mirror revocations", mirror_revocations),
        Due("send notices", notices.send_notices, waits=notices.WAITING),
        Due("write imports", importing.write_imports, waits="SELECT FROM member_import WHERE status = 'pending'"),
        Due("refresh signing keys", signing.refresh_keys, every_s=60.0),
        roles.due,
        retelling.due,
        retelling.points_due,
        Due("forget old codes", otp.forget_old_codes, every_s=300.0, by_portions=True),
        Due("forget old sessions", sessions.forget_old_sessions, every_s=300.0, by_portions=True),
        Due("forget old tokens", sessions.forget_old_tokens, every_s=300.0, by_portions=True),
    ],
    start=[_start, membership.reader, profile.reader, rotating.rotating],
    export=export.export_member,
    listeners=frozenset({"billing", "courses", "referrals", "showcase"}),
)


def app() -> FastAPI:
    """The service as uvicorn runs it."""
    return create_app(service)
