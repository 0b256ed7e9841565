"""Roles: who showed what in the last 28 days, by the product's clock, and the history of it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.courses import QuestionAsked, QuestionUpvoted, QuestionUpvoteUndone
from contracts.showcase import CommentPosted, EntryFeatured, ReportUpheld
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import PHONE, a_member, sign_in
from tests.services.members.test_evidence import approved
from tests.services.members.test_merging import a_wechat_member, bind
from tests.services.members.test_promotions import lessons, shown

OTHER_PHONE = "+8613900139000"


def commented(member_id: UUID) -> CommentPosted:
    return CommentPosted(comment_id=new_id(), entry_id=new_id(), member_id=member_id, posted_at=clock.now())


def featured(member_id: UUID, entry_id: UUID | None = None) -> EntryFeatured:
    fact: dict[str, Any] = {"feature_id": new_id(), "entry_id": entry_id or new_id()}
    return EntryFeatured(**fact, member_id=member_id, featured_at=clock.now())


def upheld(member_id: UUID) -> ReportUpheld:
    return ReportUpheld(report_id=new_id(), member_id=member_id, upheld_at=clock.now())


def asked(member_id: UUID) -> QuestionAsked:
    return QuestionAsked(question_id=new_id(), live_lesson_id=new_id(), member_id=member_id, asked_at=clock.now())


def upvoted(member_id: UUID, **more: UUID) -> QuestionUpvoted:
    fact: dict[str, Any] = {
        "question_id": new_id(),
        "voter_id": new_id(),
        "member_id": member_id,
        "upvoted_at": clock.now(),
    }
    return QuestionUpvoted(**(fact | more))


async def roles(api: Api, member_id: UUID) -> list[str]:
    await api.run_due()
    return list((await shown(api, member_id))["roles"])


async def set_to(api: Api, member_id: UUID, **patch: Any) -> None:
    answer = await api.client.patch(f"/v1/admin/members/{member_id}", json=patch, headers=api.admin())
    assert answer.status_code == 200, answer.text


async def history(api: Api, member_id: UUID) -> list[dict[str, Any]]:
    path = f"/v1/admin/members/{member_id}/role-changes"
    items: list[dict[str, Any]] = (await api.client.get(path, headers=api.admin())).json()["items"]
    return items


async def test_three_questions_make_a_seeker(api: Api) -> None:
    member_id, _ = await a_member(api)
    question = asked(member_id)
    await api.handle(question, question.model_copy(update={"id": new_id()}), asked(member_id))
    assert await roles(api, member_id) == []
    await api.handle(asked(member_id))
    assert await roles(api, member_id) == ["seeker"]
    assert await api.run_due() == 0


async def test_three_works_or_comments_make_a_sharer(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.handle(commented(member_id), approved(member_id))
    assert await roles(api, member_id) == []
    await api.handle(commented(member_id))
    assert await roles(api, member_id) == ["sharer"]


async def test_two_upheld_reports_make_a_challenger(api: Api) -> None:
    member_id, _ = await a_member(api)
    report = upheld(member_id)
    await api.handle(report, report.model_copy(update={"id": new_id()}))
    assert await roles(api, member_id) == []
    await api.handle(upheld(member_id))
    assert await roles(api, member_id) == ["challenger"]


async def test_twenty_upvotes_make_an_influencer_of_an_expert_only(api: Api) -> None:
    member_id, _ = await a_member(api)
    vote = upvoted(member_id)
    again = vote.model_copy(update={"id": new_id()})
    own = upvoted(member_id, voter_id=member_id)
    more = [upvoted(member_id, question_id=vote.question_id) for _ in range(18)]
    await api.handle(asked(member_id), vote, again, own, *more)
    await set_to(api, member_id, tier="expert")
    assert await roles(api, member_id) == []
    await api.handle(upvoted(member_id))
    assert await roles(api, member_id) == ["influencer"]
    await set_to(api, member_id, tier="enthusiast")
    assert await roles(api, member_id) == []


async def test_a_voice_that_is_undone_counts_no_more_whichever_was_told_first(api: Api) -> None:
    member_id, _ = await a_member(api)
    await set_to(api, member_id, tier="expert")
    votes = [upvoted(member_id) for _ in range(21)]
    undone = [
        QuestionUpvoteUndone(question_id=vote.question_id, member_id=member_id, voter_id=vote.voter_id)
        for vote in votes[:2]
    ]
    await api.handle(asked(member_id), undone[0], *votes)
    assert await roles(api, member_id) == ["influencer"]
    await api.handle(undone[1], votes[1].model_copy(update={"id": new_id()}))
    assert await roles(api, member_id) == []


async def test_a_featured_work_makes_an_influencer_and_completes_an_expert(api: Api) -> None:
    member_id, _ = await a_member(api)
    works = [approved(member_id) for _ in range(10)]
    await api.handle(*lessons(member_id, 30, None), *works)
    assert (await shown(api, member_id))["tier"] == "beginner"
    await api.handle(featured(member_id, works[0].entry_id), featured(member_id, works[0].entry_id))
    body = await shown(api, member_id)
    assert (body["tier"], body["evidence"]["work_featured"]) == ("expert", 1)
    assert await roles(api, member_id) == ["influencer", "sharer"]


async def test_what_is_older_than_the_window_counts_no_more_and_the_history_stays(api: Api) -> None:
    member_id, _ = await a_member(api)
    start = clock.now()
    await api.handle(*(asked(member_id) for _ in range(3)), upheld(member_id), upheld(member_id))
    assert await roles(api, member_id) == ["seeker", "challenger"]
    api.clock.advance(timedelta(days=27))
    assert await roles(api, member_id) == ["seeker", "challenger"]
    api.clock.set(start + timedelta(days=28, minutes=1))
    await sign_in(api)
    assert await roles(api, member_id) == ["lurker"]
    newest, first = await history(api, member_id)
    assert (newest["before"], newest["after"], newest["evidence"]) == (["seeker", "challenger"], ["lurker"], {})
    assert (first["before"], first["after"], first["cause"]) == ([], ["seeker", "challenger"], "evidence")
    assert first["evidence"] == {"question_asked": 3, "report_upheld": 2}


async def test_nobody_who_asked_or_reported_lurks(api: Api) -> None:
    silent, _ = await a_member(api)
    asking, _ = await a_member(api, OTHER_PHONE)
    api.clock.advance(timedelta(days=29))
    for phone in (PHONE, OTHER_PHONE):
        await sign_in(api, phone)
    await api.handle(asked(asking), upvoted(silent))
    assert (await roles(api, silent), await roles(api, asking)) == (["lurker"], [])


async def test_an_organizer_is_appointed_and_judged_like_everybody_else(api: Api) -> None:
    member_id, _ = await a_member(api)
    assert await roles(api, member_id) == ["lurker"], "here, and nothing produced"
    await set_to(api, member_id, roles=["organizer"])
    api.clock.advance(timedelta(hours=1))
    assert await roles(api, member_id) == ["organizer", "lurker"]
    await api.handle(*(asked(member_id) for _ in range(3)))
    api.clock.advance(timedelta(hours=1))
    assert await roles(api, member_id) == ["organizer", "seeker"]
    assert [change["cause"] for change in await history(api, member_id)] == [
        "evidence",
        "evidence",
        "admin",
        "evidence",
    ]


async def test_roles_an_admin_set_by_hand_are_left_alone(api: Api) -> None:
    member_id, _ = await a_member(api)
    await set_to(api, member_id, roles=["sharer"])
    await api.handle(*(asked(member_id) for _ in range(3)))
    assert await roles(api, member_id) == ["sharer"]


async def test_the_roles_and_questions_of_both_accounts_are_one_person_s(api: Api) -> None:
    kept_id, _ = await a_member(api)
    merged_id, merged = await a_wechat_member(api)
    await set_to(api, merged_id, roles=["organizer"])
    await api.handle(asked(kept_id), asked(merged_id))
    assert (await bind(api, merged)).status_code == 200
    late = asked(merged_id)
    await api.handle(late, upvoted(merged_id))
    assert await roles(api, kept_id) == ["organizer", "seeker"]
    assert [change["cause"] for change in await history(api, kept_id)] == ["evidence", "merge", "admin"]


async def test_only_admins_see_the_history(api: Api) -> None:
    member_id, headers = await a_member(api)
    path = f"/v1/admin/members/{member_id}/role-changes"
    assert (await api.client.get(path, headers=headers)).status_code == 403
    assert (await api.client.get(path, headers=api.admin("plans:read"))).status_code == 403


async def test_an_erased_member_leaves_no_roles_and_what_comes_late_is_nobody_s(api: Api) -> None:
    member_id, headers = await a_member(api)
    await api.handle(*(asked(member_id) for _ in range(3)))
    assert await roles(api, member_id) == ["seeker"]
    assert (await api.client.delete("/v1/me", headers=headers)).status_code == 204
    await api.handle(commented(member_id), upvoted(member_id), upheld(member_id), featured(member_id))
    for table in ("evidence", "role_change"):
        assert await api.sql(f"SELECT 1 FROM {table}") == []  # noqa: S608 - two names of ours
