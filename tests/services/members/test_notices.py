"""Notices: told once, in the member's language, by text message, with the proof; tried again, and given up in the end."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.notices import BillingNoticeWanted
from kit import clock
from kit.export import PATH
from kit.ids import new_id
from services.members.app import service
from services.members.notices import WAITS, send_notices
from tests.harness import Api, Run
from tests.services.members.steps import PHONE, a_member, send_code, verify
from tests.services.members.test_running import KEY, listening
from tests.services.members.test_wechat import log_in, wechat_user


def wanted(member_id: UUID, reference: str = "renewal:1", **more: Any) -> BillingNoticeWanted:
    """A renewal that is coming up."""
    fields: dict[str, Any] = {
        "member_id": member_id,
        "kind": "renewal_upcoming",
        "reference": reference,
        "body_zh": "您的黑卡将在五天后续费 19.90 元。",
        "body_en": "Your card renews in five days for 19.90 yuan.",
        "wanted_at": clock.now(),
    }
    return BillingNoticeWanted(**(fields | more))


async def told(api: Api, member_id: UUID) -> list[dict[str, Any]]:
    """What the sandbox shows of it."""
    answer = await api.client.get("/v1/sandbox/notices", params={"member_id": str(member_id)})
    assert answer.status_code == 200
    return list(answer.json()["items"])


async def shown(api: Api, member_id: UUID) -> list[dict[str, Any]]:
    """What an admin sees of it."""
    answer = await api.client.get(f"/v1/admin/members/{member_id}/notices", headers=api.admin("members:read"))
    assert answer.status_code == 200
    return list(answer.json()["items"])


async def test_a_notice_is_sent_once_with_its_proof(api: Api) -> None:
    member_id, headers = await a_member(api)
    event = wanted(member_id)
    await api.handle(event, event, wanted(member_id), wanted(member_id, body_zh="又一遍"))
    assert [(item["status"], item["channel"]) for item in await told(api, member_id)] == [("pending", "sms")]
    assert await api.run_due() == 2, "the notice, and the tag of a member who did nothing yet"
    assert await api.run_due() == 0
    [notice] = await told(api, member_id)
    assert (notice["kind"], notice["channel"], notice["status"]) == ("renewal_upcoming", "sms", "sent")
    assert notice["body"] == event.body_zh
    [mine] = (await api.client.get("/v1/me/notices", headers=headers)).json()["items"]
    assert set(mine) == {"id", "kind", "channel", "at", "body", "status"}
    assert {name: mine[name] for name in notice} == notice
    [seen] = await shown(api, member_id)
    assert (seen["attempts"], seen["reference"], seen["next_attempt_at"]) == (1, "renewal:1", None)
    assert (seen["proof"]["provider"], seen["proof"]["message_id"]) == ("sandbox", mine["id"])
    assert seen["sent_at"] == mine["at"]
    assert await api.emitted() == []


async def test_a_notice_waits_for_its_time_and_is_in_the_member_s_language(api: Api) -> None:
    member_id, headers = await a_member(api)
    changed = await api.client.patch("/v1/me", json={"language": "en"}, headers=headers)
    assert changed.json()["language"] == "en"
    assert (await api.client.patch("/v1/me", json={"language": "fr"}, headers=headers)).status_code == 422
    event = wanted(member_id, wanted_at=clock.now() + timedelta(hours=2))
    await api.handle(event)
    assert await send_notices(api.rt) == 0
    api.clock.advance(timedelta(hours=2))
    assert await send_notices(api.rt) == 1
    assert [(item["body"], item["status"]) for item in await told(api, member_id)] == [(event.body_en, "sent")]


async def test_what_is_long_past_is_not_sent_in_heaps_after_an_outage(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.handle(*(wanted(member_id, f"lesson:{number}") for number in range(30)))
    api.clock.advance(timedelta(days=2))
    await api.handle(wanted(member_id, "of two days ago"))
    api.clock.advance(timedelta(days=1, seconds=1))
    assert await api.run_due() >= 31
    assert await send_notices(api.rt) == 0
    outcomes = {(item["reference"][:2], item["status"], item["reason"]) for item in await shown(api, member_id)}
    assert outcomes == {("le", "failed", "too_late"), ("of", "sent", None)}
    read = await api.client.get("/v1/me/notices", headers=api.member(member_id), params={"limit": 100})
    assert len(read.json()["items"]) == 31


async def test_whoever_has_no_phone_reads_it_in_the_app(api: Api) -> None:
    await wechat_user(api)
    signed_in = (await log_in(api)).json()
    member_id = UUID(signed_in["member"]["id"])
    await api.handle(wanted(member_id))
    assert await send_notices(api.rt) == 1
    assert await send_notices(api.rt) == 0
    [notice] = await shown(api, member_id)
    assert (notice["channel"], notice["status"], notice["reason"]) == ("none", "undeliverable", "no_phone")
    assert (notice["proof"], notice["sent_at"], notice["next_attempt_at"]) == (None, None, None)
    headers = {"Authorization": f"Bearer {signed_in['access_token']}"}
    assert len((await api.client.get("/v1/me/notices", headers=headers)).json()["items"]) == 1


async def test_nobody_is_told_after_they_left_and_what_they_were_told_is_blank(api: Api) -> None:
    member_id, headers = await a_member(api)
    await api.handle(wanted(member_id))
    await send_notices(api.rt)
    await api.handle(wanted(member_id, "renewal:2", wanted_at=clock.now() + timedelta(days=1)))
    export = (await api.client.get(PATH, headers=headers)).json()
    assert [notice["status"] for notice in export["notices"]] == ["sent", "pending"]
    assert (await api.client.delete("/v1/me", headers=headers)).status_code == 204
    await api.handle(wanted(member_id, "renewal:3"), wanted(new_id(), "nobody"))
    api.clock.advance(timedelta(days=2))
    assert await send_notices(api.rt) == 0
    [left] = await shown(api, member_id)
    assert (left["reference"], left["body"], left["status"]) == ("renewal:1", "", "sent")
    assert "@" not in json.dumps(left["proof"])


async def test_a_frozen_member_hears_of_their_money_all_the_same(api: Api) -> None:
    member_id, _ = await a_member(api)
    path = f"/v1/admin/members/{member_id}"
    assert (await api.client.patch(path, json={"frozen": True}, headers=api.admin())).status_code == 200
    await api.handle(wanted(member_id))
    await send_notices(api.rt)
    assert [item["status"] for item in await told(api, member_id)] == ["sent"]


async def test_notices_follow_a_merge(api: Api) -> None:
    kept_id, _ = await a_member(api)
    await wechat_user(api)
    signed_in = (await log_in(api)).json()
    merged_id = UUID(signed_in["member"]["id"])
    await api.handle(wanted(merged_id))
    api.clock.advance(timedelta(minutes=2))
    await send_code(api)
    code = (await api.client.get("/v1/sandbox/otp", params={"phone": PHONE})).json()["code"]
    headers = {"Authorization": f"Bearer {signed_in['access_token']}"}
    answer = await api.client.post("/v1/me/phone", json={"phone": PHONE, "code": code}, headers=headers)
    assert answer.status_code == 200, answer.text
    await api.handle(wanted(merged_id, "late"))
    await send_notices(api.rt)
    assert [item["status"] for item in await told(api, kept_id)] == ["sent", "sent"]
    assert await told(api, merged_id) == []


async def test_who_may_read_notices(api: Api) -> None:
    member_id, headers = await a_member(api)
    path = f"/v1/admin/members/{member_id}/notices"
    for refused, status in (({}, 401), (headers, 403), (api.admin("plans:write"), 403)):
        assert (await api.client.get(path, headers=refused)).status_code == status
    assert (await api.client.get("/v1/me/notices")).status_code == 401
    assert (await api.client.get("/v1/me/notices", headers=api.admin())).status_code == 403
    unknown = await api.client.get(f"/v1/admin/members/{new_id()}/notices", headers=api.admin())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "member_not_found")
    assert (await api.client.get("/v1/sandbox/notices")).status_code == 422


class Texts:
    """A small SMS gateway on loopback: notes each text and its key, and answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str]] = []
        self.answers: list[tuple[int, str]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        taken = json.loads(await reader.readexactly(int(headers["content-length"])))
        if "text" in taken:
            self.taken.append((taken["phone"], taken["text"], headers["idempotency-key"]))
        else:
            self.code = taken["code"]
        status, body = self.answers.pop(0) if "text" in taken and self.answers else (200, '{"message_id": "m-1"}')
        if status:
            writer.write(
                f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        writer.close()


async def a_member_of(api: Api, texts: Texts) -> UUID:
    """Somebody who registered with the code that the gateway was given."""
    assert (await send_code(api)).status_code == 202
    return UUID((await verify(api, texts.code)).json()["member"]["id"])


async def test_production_sends_through_the_gateway_and_keeps_its_answer(run: Run) -> None:
    texts = Texts()
    async with (
        listening(texts.serve) as texts.url,
        run(service, env="production", members_key=KEY, sms_url=texts.url) as api,
    ):
        member_id = await a_member_of(api, texts)
        event = wanted(member_id)
        await api.handle(event)
        assert await asyncio.gather(*(send_notices(api.rt) for _ in range(4)))
        [notice] = await shown(api, member_id)
        assert texts.taken == [(PHONE, event.body_zh, notice["id"])]
        assert (notice["status"], notice["proof"]["message_id"], notice["proof"]["status"]) == ("sent", "m-1", 200)
        assert notice["proof"]["provider"] == "127.0.0.1"
        refused = await api.client.get("/v1/sandbox/notices", params={"member_id": str(member_id)})
        assert refused.status_code == 404


async def test_a_silent_gateway_is_tried_again_with_the_same_key_and_given_up_in_the_end(run: Run) -> None:
    texts = Texts()
    async with (
        listening(texts.serve) as texts.url,
        run(service, env="production", members_key=KEY, sms_url=texts.url) as api,
    ):
        member_id = await a_member_of(api, texts)
        texts.answers = [(500, ""), (0, ""), (429, ""), (200, "taken")]
        await api.handle(wanted(member_id))
        for attempt in range(1, 5):
            assert await send_notices(api.rt) == 1
            assert await send_notices(api.rt) == 0
            assert [notice["attempts"] for notice in await shown(api, member_id)] == [attempt]
            api.clock.advance(WAITS[attempt - 1])
        [notice] = await shown(api, member_id)
        assert (notice["status"], notice["proof"]["message_id"]) == ("sent", None)
        assert {key for _, _, key in texts.taken} == {notice["id"]}

        texts.answers = [(503, "")] * 20
        await api.handle(wanted(member_id, "renewal:2"))
        for wait in (*WAITS, timedelta(days=9)):
            assert await send_notices(api.rt) == 1
            api.clock.advance(wait)
        assert await send_notices(api.rt) == 0
        newest, _ = await shown(api, member_id)
        assert (newest["status"], newest["reason"]) == ("failed", "gateway_unavailable")
        assert newest["attempts"] == len(WAITS) + 1


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_text_that_the_gateway_refuses_is_not_sent_again(run: Run, status: int) -> None:
    texts = Texts()
    async with (
        listening(texts.serve) as texts.url,
        run(service, env="production", members_key=KEY, sms_url=texts.url) as api,
    ):
        member_id = await a_member_of(api, texts)
        texts.answers = [(status, "")]
        await api.handle(wanted(member_id))
        assert await send_notices(api.rt) == 1
        api.clock.advance(timedelta(days=9))
        assert await send_notices(api.rt) == 0
        [notice] = await shown(api, member_id)
        assert (notice["status"], notice["reason"]) == ("undeliverable", f"refused_{status}")
        assert len(texts.taken) == 1


async def test_a_crash_after_sending_sends_again_under_the_same_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = Texts()
    async with (
        listening(texts.serve) as texts.url,
        run(service, env="production", members_key=KEY, sms_url=texts.url) as api,
    ):
        member_id = await a_member_of(api, texts)
        await api.handle(wanted(member_id))

        async def dies(*_: Any, **__: Any) -> None:
            raise RuntimeError("the power went")

        with monkeypatch.context() as patched:
            patched.setattr("services.members.notices._note", dies)
            with pytest.raises(RuntimeError):
                await send_notices(api.rt)
        assert await send_notices(api.rt) == 0
        api.clock.advance(WAITS[0])
        assert await send_notices(api.rt) == 1
        assert await send_notices(api.rt) == 0
        [notice] = await shown(api, member_id)
        assert [key for _, _, key in texts.taken] == [notice["id"]] * 2
        assert notice["status"] == "sent"
