"""The room's talk: events that nobody misses, questions, upvotes, answers, notices of changes."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx

from contracts.courses import QuestionAsked, QuestionUpvoted
from contracts.members import MemberChanged, MemberErased, MemberMerged, MemberRegistered
from contracts.notices import CoursesNoticeWanted
from kit import clock
from kit.ids import new_id
from kit.text import instant
from tests.harness import Api
from tests.services.courses.live_world import ADMIN, bought, move, seat
from tests.services.courses.room_world import LIVE, ask, following, give_card, plan_at

FREE = [{"kind": "free"}]
SOON = timedelta(hours=2)


async def question(api: Api, lesson_id: str, member_id: Any, text: str = "黄油要多软？") -> httpx.Response:
    return await ask(api, "POST", f"{LIVE}/{lesson_id}/questions", member_id, {"text": text})


async def test_a_stream_tells_how_things_stand_and_then_what_happens(api: Api) -> None:
    lesson_id, asker = await plan_at(api, SOON, access=FREE), new_id()
    async with following(api, lesson_id, asker) as stream:
        [status] = await stream.until(1, "status")
        assert status.data == {"status": "scheduled"}
        assert (await stream.until(1, "online"))[0].data == {"online": 1}
        await move(api, lesson_id, "live")
        asked = (await question(api, lesson_id, asker)).json()
        answered = await ask(api, "POST", f"/v1/questions/{asked['id']}/answers", new_id(), {"text": "按得动就行"})
        told = await stream.until(4, "status", "question", "answer")
        assert [item.event for item in told] == ["status", "status", "question", "answer"]
        assert told[1].data == {"status": "live"}
        assert told[2].data["text"] == "黄油要多软？"
        assert told[3].data == answered.json() | {"question_id": asked["id"]}
        assert [item.id for item in told] == [status.id, status.id + 1, status.id + 2, status.id + 3]


async def test_whoever_comes_back_misses_nothing_and_hears_nothing_twice(api: Api) -> None:
    lesson_id, member_id = await plan_at(api, SOON, access=FREE), new_id()
    async with following(api, lesson_id, member_id) as stream:
        [first] = await stream.until(1, "status")
    # More than a page of the table, written by many at once while nobody listens, and while somebody comes back.
    texts = [f"问题 {number}" for number in range(230)]
    for start in range(0, 200, 20):
        answers = await asyncio.gather(
            *(question(api, lesson_id, new_id(), text) for text in texts[start : start + 20])
        )
        assert {answer.status_code for answer in answers} == {201}
    late = asyncio.gather(*(question(api, lesson_id, new_id(), text) for text in texts[200:]))
    async with following(api, lesson_id, member_id, last=first.id) as stream:
        told = await stream.until(230, "question")
        await late
        assert [item.id for item in told] == list(range(first.id + 1, first.id + 231))
        assert sorted(item.data["text"] for item in told) == sorted(texts)
        assert [item for item in stream.news if item.event == "status"] == []


async def test_online_counts_people_over_all_processes_not_streams(api: Api) -> None:
    lesson_id, me = await plan_at(api, SOON, access=FREE), new_id()
    async with (
        following(api, lesson_id, me) as mine,
        following(api, lesson_id, me),
        following(api, lesson_id, new_id()),
    ):
        assert len(await mine.until(1, "online", data={"online": 2})) == 1
        await api.rt.redis.zadd(f"heika:courses:online:{lesson_id}", {"somebody elsewhere": 2**40})
        assert len(await mine.until(1, "online", data={"online": 3})) == 1
    async with following(api, lesson_id, new_id()) as stream:
        assert len(await stream.until(1, "online", data={"online": 2})) == 1


async def test_a_stream_that_reads_too_slowly_is_closed_and_comes_back(api: Api) -> None:
    lesson_id = await plan_at(api, SOON, access=FREE)
    feeds = api.rt.state["feeds"]
    stream = feeds.follow(lesson_id, "slow", None)
    await anext(stream)
    await anext(stream)
    [feed] = feeds.feeds.values()
    for number in range(1200):
        feed._give([b"%d" % number])
    assert [piece async for piece in stream] == []
    assert not feed.present
    # What nobody follows any more goes with the next lesson that somebody does.
    await feed.task
    other = await plan_at(api, SOON, access=FREE)
    stream = feeds.follow(other, "next", None)
    await anext(stream)
    assert feeds.feeds.keys() == {other}
    await stream.aclose()


async def test_questions_rank_by_priority_then_by_upvotes(api: Api) -> None:
    lesson_id = await plan_at(api, SOON, access=[{"kind": "membership"}])
    plain, wanted, preferred, voter = (new_id() for _ in range(4))
    for who in (plain, wanted, voter):
        await give_card(api, who, "member_lessons")
    await give_card(api, preferred, "member_lessons", "qa_priority")
    await api.handle(MemberRegistered(member_id=plain, nickname="小周", registered_at=clock.now()))
    await api.handle(MemberChanged(member_id=plain, nickname="老周", tier="beginner"))
    await api.handle(MemberRegistered(member_id=plain, nickname="小周", registered_at=clock.now()))
    await api.emitted()
    ids = [(await question(api, lesson_id, who)).json()["id"] for who in (plain, wanted, preferred)]
    asked = await api.emitted()
    assert [(type(event), event.member_id) for event in asked if isinstance(event, QuestionAsked)] == [
        (QuestionAsked, plain), (QuestionAsked, wanted), (QuestionAsked, preferred),
    ]  # fmt: skip
    votes = await asyncio.gather(*(ask(api, "PUT", f"/v1/questions/{ids[1]}/upvote", voter) for _ in range(4)))
    assert {vote.json()["upvotes"] for vote in votes} == {1}
    [upvoted] = await api.emitted()
    assert isinstance(upvoted, QuestionUpvoted)
    assert (str(upvoted.question_id), upvoted.member_id, upvoted.voter_id) == (ids[1], wanted, voter)
    page = (await api.client.get(f"{LIVE}/{lesson_id}/questions", params={"limit": 2})).json()
    rest = (await api.client.get(f"{LIVE}/{lesson_id}/questions", params={"cursor": page["next_cursor"]})).json()
    items = page["items"] + rest["items"]
    assert [(item["id"], item["priority"], item["upvotes"]) for item in items] == [
        (ids[2], True, 0), (ids[1], False, 1), (ids[0], False, 0),
    ]  # fmt: skip
    assert items[2]["asked_by"] == {"id": str(plain), "nickname": "老周"}


async def test_who_may_ask_upvote_and_answer(api: Api) -> None:
    lesson_id, holder, stranger = await plan_at(api, SOON), new_id(), new_id()
    await give_card(api, holder)
    assert (await api.client.post(f"{LIVE}/{lesson_id}/questions", json={"text": "？"})).status_code == 401
    refused = await question(api, lesson_id, stranger)
    assert (refused.status_code, refused.json()["code"]) == (403, "access_required")
    assert (await question(api, lesson_id, holder, "")).status_code == 422
    asked = (await question(api, lesson_id, holder)).json()["id"]
    own = await ask(api, "PUT", f"/v1/questions/{asked}/upvote", holder)
    assert (own.status_code, own.json()["code"]) == (403, "own_question")
    answers, body = f"/v1/questions/{asked}/answers", {"text": "室温半小时"}
    assert (await ask(api, "PUT", f"/v1/questions/{asked}/upvote", stranger)).status_code == 403
    assert (await ask(api, "POST", answers, stranger, body)).status_code == 403
    assert (await api.client.post(answers, json=body)).status_code == 401
    assert (await api.client.post(answers, json=body, headers=api.partner())).status_code == 403
    assert (await api.client.post(answers, json=body, headers=api.admin("courses:read"))).status_code == 403
    assert (await ask(api, "PUT", f"/v1/questions/{new_id()}/upvote", holder)).status_code == 404
    answer = await api.client.post(answers, json=body, headers=api.admin("courses:write"))
    assert (answer.status_code, answer.json()["text"]) == (201, "室温半小时")
    assert answer.json()["by"] == {"id": None, "nickname": "老师助手"}
    [act] = [act for act in await api.acted() if act.action == "question.answered"]
    assert act.after == {"text": "室温半小时"}
    await move(api, lesson_id, "live")
    await move(api, lesson_id, "ended")
    assert (await ask(api, "POST", answers, holder, body)).status_code == 201
    assert (await question(api, lesson_id, holder)).status_code == 201
    [item] = [
        item for item in (await api.client.get(f"{LIVE}/{lesson_id}/questions")).json()["items"] if item["answers"]
    ]
    assert [reply["by"]["id"] for reply in item["answers"]] == [None, str(holder)]
    canceled = await plan_at(api, SOON, "scheduled", "canceled", access=FREE)
    assert (await question(api, canceled, holder)).json()["code"] == "questions_closed"


async def test_questions_outlive_who_asked_and_a_person_has_one_voice(api: Api) -> None:
    lesson_id, asker, kept, merged = await plan_at(api, SOON, access=FREE), new_id(), new_id(), new_id()
    asked = (await question(api, lesson_id, asker)).json()["id"]
    own = (await question(api, lesson_id, kept)).json()["id"]
    for who in (kept, merged):
        await ask(api, "PUT", f"/v1/questions/{asked}/upvote", who)
    await ask(api, "PUT", f"/v1/questions/{own}/upvote", merged)
    await api.emitted()
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged), MemberMerged(kept_id=kept, merged_id=merged))
    undone = {(str(event.question_id), event.member_id, event.voter_id) for event in await api.emitted()}  # type: ignore[attr-defined]
    assert undone == {(asked, asker, merged), (own, kept, merged)}
    await api.handle(MemberErased(member_id=asker), MemberErased(member_id=asker))
    items = (await api.client.get(f"{LIVE}/{lesson_id}/questions")).json()["items"]
    assert [(item["id"], item["upvotes"], item["asked_by"]["id"]) for item in items] == [
        (asked, 1, None), (own, 0, str(kept)),
    ]  # fmt: skip


async def test_everyone_on_the_list_is_told_of_a_new_time_and_of_a_cancellation_once(api: Api) -> None:
    lesson_id = await plan_at(api, SOON, capacity=1, access=[{"kind": "points", "needed": 5}, *FREE])
    listed = [new_id(), new_id()]
    for who in listed:
        await seat(api, lesson_id, who)
    # Who paid is told too, with a seat or without, once.
    for who in (listed[1], payer := new_id()):
        await ask(api, "POST", f"{LIVE}/{lesson_id}/points-payment", who)
        await api.handle(bought(lesson_id, who))
    listed.append(payer)
    await api.emitted()
    start = clock.now() + timedelta(days=2)
    span = {"starts_at": instant(start), "ends_at": instant(start + timedelta(hours=1))}
    async with following(api, lesson_id, new_id()) as stream:
        await stream.until(1, "status")
        for _ in range(2):
            changed = await api.client.patch(f"{ADMIN}/{lesson_id}", json=span, headers=api.admin())
            assert changed.status_code == 200
        await api.client.patch(f"{ADMIN}/{lesson_id}", json={"title": "改名"}, headers=api.admin())
        told = [event for event in await api.emitted() if isinstance(event, CoursesNoticeWanted)]
        assert [(event.member_id, event.kind) for event in told] == [(who, "lesson_rescheduled") for who in listed]
        local = start.astimezone(clock.ZONE)
        assert f"{local.month} 月 {local.day} 日 {local:%H:%M}" in told[0].body_zh
        assert f"{local:%Y-%m-%d %H:%M} (Asia/Shanghai)" in told[0].body_en
        [notice] = await stream.until(1, "notice")
        assert notice.data == {"kind": "rescheduled"} | span
        await move(api, lesson_id, "canceled")
        told = [event for event in await api.emitted() if isinstance(event, CoursesNoticeWanted)]
        assert [(event.member_id, event.kind) for event in told] == [(who, "lesson_canceled") for who in listed]
        assert [item.data for item in await stream.until(2, "notice")][1] == {"kind": "canceled"}
        assert (await stream.until(2, "status"))[1].data == {"status": "canceled"}
    assert await api.run_due() == 0


async def test_the_end_of_an_unattended_room_is_told(api: Api) -> None:
    lesson_id = await plan_at(api, timedelta(minutes=5), "scheduled", "live", access=FREE)
    async with following(api, lesson_id, new_id()) as stream:
        assert (await stream.until(1, "status"))[0].data == {"status": "live"}
        api.clock.advance(timedelta(minutes=5 + 90 + 30))
        assert await api.run_due() == 1
        assert (await stream.until(2, "status"))[1].data == {"status": "ended"}
        assert await api.run_due() == 0


async def test_the_stream_s_endpoint_speaks_server_sent_events(api: Api) -> None:
    lesson_id = await plan_at(api, SOON, access=FREE)
    assert (await api.client.get(f"{LIVE}/{new_id()}/events")).status_code == 404
    started: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            started.set_result(message)
        elif message.get("body", b"").startswith(b"id: "):
            gone.set()

    app = api.client._transport.app  # type: ignore[attr-defined]
    path = f"{LIVE}/{lesson_id}/events"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("heika.test", 80),
        "client": ("127.0.0.1", 1), "headers": [(b"host", b"heika.test"), (b"last-event-id", b"none of ours")],
    }  # fmt: skip
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    headers = dict(started.result()["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"private, no-store"
