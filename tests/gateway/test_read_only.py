"""A token that only looks: the gateway refuses its writes before any service is asked."""

import pytest

from kit import auth
from kit.ids import new_id
from tests import harness
from tests.gateway.conftest import Start
from tests.gateway.test_home import MEMBER, Answers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_no_write_of_one_who_looks_gets_through(start_here: Start, method: str) -> None:
    auth.keys.publish({"keys": [harness.signing_key().as_dict(private=False)]})
    services = {name: Answers({}) for name in ("members", "billing", "courses", "referrals", "showcase")}
    token = harness.sign(MEMBER | {"scope": "read-only", "act": {"sub": str(new_id())}})
    headers = {"Authorization": f"Bearer {token}", "Accept-Language": "en"}
    async with start_here(upstreams=services) as front:
        for path in ("/v1/me", "/v1/orders", "/v1/touches", "/v1/lessons/1/progress", "/v1/sandbox/clock"):
            refused = await front.client.request(method, path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "read_only_session"), path
        assert [asked for service in services.values() for asked in service.asked] == []
        assert (await front.client.get("/v1/me", headers=headers)).status_code == 404
        assert services["members"].asked == ["/v1/me"]
