"""The poster: a picture whose QR code opens the invitation, and in which channels there is one."""

import io

import segno
from PIL import Image

from tests.harness import Api
from tests.kit.test_poster import modules
from tests.services.referrals.world import code_of, member


async def test_the_poster_carries_the_members_link(api: Api) -> None:
    headers = api.member(await member(api))
    url = (await api.client.get("/v1/me/invite", headers=headers)).json()["url"]

    answer = await api.client.get("/v1/me/invite/poster.png", headers=headers)

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.headers["Cache-Control"] == "private, no-store"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (750, 1100)
        expected = segno.make(url, error="m", micro=False, boost_error=False).matrix
        assert modules(picture) == [[bool(module) for module in row] for row in expected]
    assert (await api.client.get("/v1/me/invite/poster.png")).status_code == 401


async def test_inviting_is_switched_off_in_each_channel_and_codes_that_are_out_work_on(api: Api) -> None:
    switches, admin, inviter = "/v1/admin/referral-rules/share-switches", api.admin("coupons:write"), await member(api)
    code = await code_of(api, inviter)

    async def open_in() -> list[str]:
        told = []
        for path in ("/v1/me/invite", "/v1/me/invite/poster.png"):
            for channel in ("mini_program", "h5", "app", None):
                params = {"channel": channel} if channel else {}
                answer = await api.client.get(path, headers=api.member(inviter), params=params)
                if answer.status_code == 200:
                    told.append(str(channel))
                else:
                    assert (answer.status_code, answer.json()["code"]) == (409, "sharing_off")
        return told

    assert await open_in() == ["mini_program", "h5", "app", "None"] * 2
    off = {"mini_program": False, "h5": True, "app": True}
    assert (await api.client.put(switches, headers=admin, json=off)).json() == off
    assert (await api.client.get(switches, headers=api.admin("coupons:read"))).json() == off
    assert await open_in() == ["h5", "app", "None"] * 2
    act = (await api.acted())[-1]
    assert (act.action, act.before, act.after) == (
        "referral_rule.share_switches",
        {"mini_program": True},
        {"mini_program": False},
    )
    nowhere = dict.fromkeys(off, False)
    assert (await api.client.put(switches, headers=admin, json=nowhere)).status_code == 200
    assert await open_in() == []
    newcomer = await member(api, invite_code=code)
    assert await api.sql("SELECT member_id FROM attribution") == [(newcomer,)]

    for headers, status in ((api.admin("coupons:read"), 403), (api.member(inviter), 403), ({}, 401)):
        assert (await api.client.put(switches, headers=headers, json=off)).status_code == status
    assert (await api.client.get(switches, headers=api.admin("members:read"))).status_code == 403
    for body in ({"h5": True}, off | {"h5": None}, off | {"weibo": True}):
        assert (await api.client.put(switches, headers=admin, json=body)).status_code == 422
    unknown = await api.client.get("/v1/me/invite", headers=api.member(inviter), params={"channel": "weibo"})
    assert unknown.status_code == 422
