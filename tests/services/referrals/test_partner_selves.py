"""Partners who bring themselves, or old customers under another name: what it earns waits for a person."""

from datetime import timedelta
from typing import Any

from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.test_fraud import cases, resolve
from tests.services.referrals.test_partners import by, commissions, link, partner
from tests.services.referrals.world import lesson, member, paid, registered


async def newcomer(api: Api, code: str, **fields: Any) -> Any:
    event = registered(invite_code=code, **fields)
    await api.handle(event)
    return event.member_id


async def test_a_partner_earns_nothing_by_their_own_accounts_unless_a_person_says_so(api: Api) -> None:
    own = await member(api, visitor_id="tablet", phone_hash="a")
    await api.handle(paid(own, fingerprint="card-1"))
    who = await partner(api, member_id=str(own))
    assert who["member_id"] == str(own)
    code = (await link(api, who))["code"]
    second = await newcomer(api, code, visitor_id="tablet", phone_hash="b")
    third = await newcomer(api, code, visitor_id="phone", phone_hash="c")
    honest = await newcomer(api, code, visitor_id="other", phone_hash="d")
    api.clock.advance(timedelta(minutes=1))

    # The first lesson is earned already when the card shows whose the account is.
    await api.handle(lesson(second), lesson(third), lesson(honest))
    assert await commissions(api, who) == [("trial", 300, "held"), *[("trial", 300, "pending")] * 2]
    await api.handle(paid(third, fingerprint="card-1", total=1000), paid(honest, fingerprint="card-2", total=2000))

    found = {case["kind"]: case for case in await cases(api, status="open")}
    assert set(found) == {"same_device", "same_payment"}
    for kind, account in (("same_device", second), ("same_payment", third)):
        assert sorted(found[kind]["member_ids"]) == sorted([str(own), str(account)])
        assert (found[kind]["evidence"]["reason"], found[kind]["evidence"]["partner_id"]) == (kind, who["id"])
    assert len(found["same_device"]["evidence"]["devices"]) == 1
    assert found["same_payment"]["evidence"]["same_payment_as"] == [str(own)]
    assert "card-1" not in str(found)
    assert await commissions(api, who, status="pending") == [("sale", 400, "pending"), ("trial", 300, "pending")]
    assert await commissions(api, who, status="held") == [("sale", 200, "held"), *[("trial", 300, "held")] * 2]

    assert (await resolve(api, found["same_device"], "release")).status_code == 200
    assert (await resolve(api, found["same_payment"], "void")).status_code == 200
    assert await commissions(api, who, status="voided") == [("sale", 200, "voided"), ("trial", 300, "voided")]
    # One was found well and stays so; of the other whatever comes next waits again.
    await api.handle(paid(second, total=3000), paid(third, fingerprint="card-1", total=4000))
    assert await commissions(api, who, status="held") == [("sale", 800, "held")]
    assert [case["kind"] for case in await cases(api, status="open")] == ["same_payment"]
    await api.handle(lesson(second), lesson(third))
    assert len(await cases(api)) == 3


async def test_an_old_customer_under_another_name_is_no_newcomer(api: Api) -> None:
    old = await member(api)
    await api.handle(paid(old, fingerprint="card-1"))
    api.clock.advance(timedelta(days=1))
    who = await partner(api)
    code = (await link(api, who))["code"]
    again, mate, other = [await newcomer(api, code) for _ in range(3)]
    api.clock.advance(timedelta(minutes=1))
    # Two newcomers who share a card are a household.
    await api.handle(*(paid(one, fingerprint=card) for one, card in ((again, "card-1"), (mate, "card-3"))))
    await api.handle(paid(other, fingerprint="card-3"))

    (case,) = await cases(api)
    assert (case["kind"], case["member_ids"]) == ("existing_customer", [str(again)])
    assert case["evidence"]["same_payment_as"] == [str(old)]
    assert await commissions(api, who) == [("sale", 398, "held"), *[("sale", 398, "pending")] * 2]


async def test_a_partners_own_account_is_a_member_that_may_be_named_later_and_leaves(api: Api) -> None:
    own = await member(api)
    body = {"name": "x", "email": "x@example.com", "commission": {"percent": 20}, "hold_days": 7}
    answer = await api.client.post("/v1/admin/partners", headers=api.admin(), json=body | {"member_id": str(new_id())})
    assert (answer.status_code, answer.json()["code"]) == (422, "partner_member_unknown")
    assert await api.sql("SELECT FROM partner") == []

    who = await partner(api)
    path = f"/v1/admin/partners/{who['id']}"
    code = (await link(api, who))["code"]
    buyer = await newcomer(api, code)
    await api.handle(paid(buyer, fingerprint="card-1"), paid(own, fingerprint="card-1"))
    assert await commissions(api, who) == [("sale", 398, "pending")]
    changed = await api.client.patch(path, headers=api.admin(), json={"member_id": str(own)})
    assert (changed.status_code, changed.json()["member_id"]) == (200, str(own))
    await api.handle(lesson(buyer))
    assert await commissions(api, who) == [("sale", 398, "held"), ("trial", 300, "held")]
    cleared = await api.client.patch(path, headers=api.admin(), json={"member_id": None})
    assert (cleared.status_code, cleared.json()["member_id"]) == (200, None)
    assert "member_id" not in (await api.client.get("/v1/partner/me", headers=by(api, who))).json()
