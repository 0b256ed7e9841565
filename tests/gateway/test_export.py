"""A member's export at the gateway: all services' parts in one document, and who did not answer by name."""

from typing import Any

import pytest

from kit import auth
from kit.export import PATH
from tests import harness
from tests.gateway.conftest import Start
from tests.gateway.test_home import MEMBER, Answers

PARTS = ("billing", "courses", "referrals", "showcase")


@pytest.fixture(autouse=True)
def _published_key() -> None:
    auth.keys.publish({"keys": [harness.signing_key().as_dict(private=False)]})


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {harness.sign(MEMBER | claims)}"}


def world() -> dict[str, Answers]:
    parts = {name: Answers({PATH: {"table": [{"of": name}]}}) for name in PARTS}
    return parts | {"members": Answers({PATH: {"profile": {"id": MEMBER["sub"]}, "phone": None}})}


async def test_the_export_is_every_service_s_part(start_here: Start) -> None:
    async with start_here(upstreams=world()) as front:
        answer = await front.client.get("/v1/me/export", headers=bearer())
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["content-disposition"] == 'attachment; filename="heika-export.json"'
        document = answer.json()
        assert document.pop("exported_at").endswith("Z")
        expected = {name: {"table": [{"of": name}]} for name in PARTS}
        assert document == expected | {"profile": {"id": MEMBER["sub"]}, "phone": None, "missing": []}


async def test_parts_that_do_not_answer_are_named(start_here: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.export.PART_S", 0.1)
    services = world()
    services["courses"].asleep = True
    services["showcase"].status = 500
    async with start_here(upstreams=services) as front:
        answer = await front.client.get("/v1/me/export", headers=bearer())
        assert (answer.status_code, answer.json()["missing"]) == (200, ["courses", "showcase"])
        assert answer.json()["billing"] == {"table": [{"of": "billing"}]}


async def test_only_a_member_who_is_there_has_an_export(start_here: Start) -> None:
    services = world()
    services["members"].status = 404
    async with start_here(upstreams=services) as front:
        assert (await front.client.get("/v1/me/export")).status_code == 401
        assert (await front.client.get("/v1/me/export", headers=bearer(role="admin"))).status_code == 403
        assert (await front.client.get("/v1/me/export", headers=bearer())).status_code == 404


async def test_no_service_s_part_is_reachable_from_outside(start_here: Start) -> None:
    services = world()
    async with start_here(upstreams=services) as front:
        assert (await front.client.get(PATH, headers=bearer())).status_code == 404
        assert [asked for service in services.values() for asked in service.asked] == []
