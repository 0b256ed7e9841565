"""Batches of redeem codes: thousands at once, shown once, kept as digests only, withdrawn and reported on."""

import asyncio
import csv
import io
from datetime import timedelta
from typing import Any

import httpx
import pytest

from kit import clock
from kit.http import HEAD_ONLY
from kit.ids import new_id
from kit.text import instant
from services.billing import codes
from tests.services.billing.till import Till

BATCHES = "/v1/admin/redeem-code-batches"


async def make(till: Till, **changes: Any) -> httpx.Response:
    body = {"plan_code": "black-card-3m", "count": 5, "expires_at": instant(clock.now() + timedelta(days=30))}
    return await till.client.post(BATCHES, json=body | changes, headers=till.api.admin("coupons:write"))


async def download(till: Till, batch_id: str) -> httpx.Response:
    return await till.client.get(f"{BATCHES}/{batch_id}/codes.csv", headers=till.api.admin("coupons:write"))


async def codes_of(till: Till, **changes: Any) -> tuple[str, list[str]]:
    """A fresh batch's id, and its codes."""
    made = await make(till, **changes)
    assert made.status_code == 201, made.text
    answer = await download(till, made.json()["id"])
    assert answer.status_code == 200, answer.text
    return made.json()["id"], [row["code"] for row in csv.DictReader(io.StringIO(answer.text))]


async def redeem(till: Till, code: str, member: Any = None) -> httpx.Response:
    """Redeem a code as an app does, which tries again where a busy machine answers 503."""
    headers = till.api.member(member or new_id())
    answer = await till.client.post("/v1/redemptions", json={"code": code}, headers=headers)
    return await redeem(till, code, member) if answer.status_code == 503 else answer


async def read(till: Till, batch_id: str, part: str = "") -> dict[str, Any]:
    answer = await till.client.get(f"{BATCHES}/{batch_id}{part}", headers=till.api.admin("coupons:read"))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_ten_thousand_codes_are_made_in_one_call_and_kept_as_digests_only(till: Till) -> None:
    made = await make(till, count=10_000, note="春季沙龙")
    assert made.status_code == 201, made.text
    batch = made.json()
    assert (batch["plan_code"], batch["months"], batch["count"], batch["redeemed"], batch["voided"]) == (
        "black-card-3m",
        3,
        10_000,
        0,
        0,
    )
    assert (batch["note"], batch["downloaded_at"], batch["voided_at"]) == ("春季沙龙", None, None)
    assert await read(till, batch["id"]) == batch
    answer = await download(till, batch["id"])
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["cache-control"] == "private, no-store"
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["code"]
    found = {row[0] for row in rows[1:]}
    assert len(found) == len(rows) - 1 == 10_000
    [(count, lengths)] = await till.api.sql(
        "SELECT count(*), count(*) FILTER (WHERE length(code_hash) = 32) FROM redeem_code"
    )
    assert (count, lengths) == (10_000, 10_000)
    # Nowhere in the database is a code, or what it was made from.
    held = await till.api.sql(
        "SELECT to_jsonb(b)::text, (SELECT string_agg(body::text, '') FROM outbox) FROM code_batch b"
    )
    assert '"seed": null' in held[0][0]
    assert not any(code in held[0][1] or code.replace("-", "") in held[0][1] for code in list(found)[:100])
    stored = await till.api.sql("SELECT 1 FROM redeem_code WHERE code_hash = :code", code=codes.digest("", "0" * 16))
    assert stored == []


async def test_codes_are_shown_once_to_whoever_asks_first(till: Till) -> None:
    batch_id = (await make(till)).json()["id"]
    await till.api.acted()
    head = await till.client.get(
        f"{BATCHES}/{batch_id}/codes.csv", headers=till.api.admin("coupons:write") | {HEAD_ONLY: "1"}
    )
    assert (head.status_code, head.content) == (200, b"")
    answers = await asyncio.gather(*(download(till, batch_id) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [410] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 410} == {"codes_already_downloaded"}
    assert [(act.action, act.target) for act in await till.api.acted()] == [("code_batch.downloaded", batch_id)]
    assert (await read(till, batch_id))["downloaded_at"] is not None


async def test_a_key_makes_one_batch(till: Till) -> None:
    headers = till.api.admin("coupons:write") | {"Idempotency-Key": "one batch"}
    body = {"plan_code": "black-card-1m", "count": 3, "expires_at": instant(clock.now() + timedelta(days=1))}
    answers = [await till.client.post(BATCHES, json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert await till.api.sql("SELECT count(*) FROM redeem_code") == [(3,)]
    listed = (await till.client.get(BATCHES, headers=till.api.admin("coupons:read"))).json()
    assert [batch["id"] for batch in listed["items"]] == [answers[0].json()["id"]]


async def test_only_admins_with_the_scope_make_download_void_and_read(till: Till) -> None:
    batch_id = (await make(till)).json()["id"]
    calls = [("POST", ""), ("GET", ""), ("GET", f"/{batch_id}"), ("GET", f"/{batch_id}/codes.csv")]
    calls += [("POST", f"/{batch_id}/void"), ("GET", f"/{batch_id}/report")]
    body = {"plan_code": "black-card-1m", "count": 1, "expires_at": instant(clock.now() + timedelta(days=1))}
    for method, path in calls:
        json = body if (method, path) == ("POST", "") else None
        for headers, status in ((None, 401), (till.api.member(), 403), (till.api.admin("orders:write"), 403)):
            answer = await till.client.request(method, BATCHES + path, json=json, headers=headers)
            assert answer.status_code == status, (method, path)
    for path in ("/codes.csv", "/void"):
        method = "GET" if path == "/codes.csv" else "POST"
        answer = await till.client.request(
            method, f"{BATCHES}/{batch_id}{path}", headers=till.api.admin("coupons:read")
        )
        assert answer.status_code == 403
    batch = await read(till, batch_id)
    assert (batch["downloaded_at"], batch["voided_at"], batch["voided"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"plan_code": "gold"}, 404, "plan_not_found"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "batch_over_already"),
        ({"count": 0}, 422, "validation_failed"),
        ({"count": 20_001}, 422, "validation_failed"),
        ({"count": True}, 422, "validation_failed"),
        ({"color": "red"}, 422, "validation_failed"),
    ],
)
async def test_an_impossible_batch_is_refused(till: Till, changes: dict[str, Any], status: int, code: str) -> None:
    answer = await make(till, **changes)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await till.api.sql("SELECT 1 FROM code_batch") == []
    assert await till.api.acted() == []


async def test_an_unknown_batch_is_not_found(till: Till) -> None:
    for method, part in (("GET", ""), ("GET", "/codes.csv"), ("POST", "/void"), ("GET", "/report")):
        answer = await till.client.request(method, f"{BATCHES}/{new_id()}{part}", headers=till.api.admin())
        assert (answer.status_code, answer.json()["code"]) == (404, "batch_not_found")


async def test_voiding_withdraws_what_nobody_redeemed_and_only_that(till: Till) -> None:
    batch_id, found = await codes_of(till)
    assert (await redeem(till, found[0])).status_code == 201
    await till.api.acted()
    path, headers = f"{BATCHES}/{batch_id}/void", till.api.admin("coupons:write")
    voided = await till.client.post(path, headers=headers)
    assert voided.status_code == 200, voided.text
    assert (voided.json()["redeemed"], voided.json()["voided"]) == (1, 4)
    assert (await till.client.post(path, headers=headers)).json() == voided.json()
    assert [act.action for act in await till.api.acted()] == ["code_batch.voided"]
    assert [(await redeem(till, code)).json()["code"] for code in found[1:]] == ["code_void"] * 4
    assert (await redeem(till, found[0])).json()["code"] == "code_used"


async def test_a_code_is_redeemed_or_voided_never_both(till: Till) -> None:
    batch_id, found = await codes_of(till, count=40)
    await till.api.emitted()
    path, headers = f"{BATCHES}/{batch_id}/void", till.api.admin("coupons:write")
    *answers, voided = await asyncio.gather(
        *(redeem(till, code) for code in found), till.client.post(path, headers=headers)
    )
    assert voided.status_code == 200, voided.text
    redeemed = [answer.status_code for answer in answers].count(201)
    assert {answer.json()["code"] for answer in answers if answer.status_code != 201} <= {"code_void"}
    batch = await read(till, batch_id)
    assert (batch["redeemed"], batch["voided"]) == (redeemed, 40 - redeemed)
    assert len(await till.api.emitted()) == redeemed


async def test_the_report_says_who_came_when_and_who_bought_later(till: Till) -> None:
    batch_id, found = await codes_of(till, count=6)
    buyer = new_id()
    # An evening in UTC is the next business day's morning in Shanghai.
    start = clock.now().replace(hour=15, minute=30) + timedelta(days=1)
    till.api.clock.set(start)
    await till.buy(buyer)
    first = new_id()
    for member in (first, buyer):
        assert (await redeem(till, found.pop(), member)).status_code == 201
    till.api.clock.advance(timedelta(hours=1))
    assert (await redeem(till, found.pop())).status_code == 201
    assert (await redeem(till, found.pop(), first)).status_code == 201
    await till.buy(first, plan_code="black-card-12m")
    report = await read(till, batch_id, "/report")
    day = start.astimezone(clock.ZONE).date()
    assert report["days"] == [
        {"day": day.isoformat(), "redeemed": 2, "newcomers": 1},
        {"day": (day + timedelta(days=1)).isoformat(), "redeemed": 2, "newcomers": 1},
    ]
    assert (report["redeemed"], report["newcomers"], report["existing"], report["buyers"]) == (4, 2, 2, 1)
    assert (report["count"], report["voided"], report["plan_code"]) == (6, 0, "black-card-3m")
