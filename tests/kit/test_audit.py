"""The audit trail of a service that knows nothing of it: acts are told, reading is none, secrets stay hidden."""

from typing import Annotated

import pytest
from fastapi import Request
from sqlalchemy import text
from sqlmodel import Field, SQLModel

from kit import audit
from kit.app import Service, router
from kit.auth import Caller, admin_with
from kit.db import SessionDep, new_registry
from kit.settings import ServiceSettings, from_env
from tests.harness import Run


class Model(SQLModel, registry=new_registry()):
    """The tables of this test's service."""


class Oven(Model, table=True):
    """Something to change."""

    id: int = Field(primary_key=True)


class Settings(ServiceSettings):
    """The settings of this test's service."""

    database_url: str = from_env("AUDITED_DATABASE_URL", "PostgreSQL", "")


class AuditedAdminActed(audit.AdminActed, type="audited.admin.acted"):
    """An admin acted in this test."""


Admin = Annotated[Caller, admin_with("plans:write")]
api = router(prefix="/v1/admin/ovens")


@api.post("/{oven_id}")
async def heat(oven_id: int, _: Admin, session: SessionDep) -> dict[str, int]:
    """Write without telling."""
    await session.execute(text("INSERT INTO oven (id) VALUES (:id) ON CONFLICT DO NOTHING"), {"id": oven_id})
    return {"id": oven_id}


@api.post("/{oven_id}/look")
async def look(oven_id: int, _: Admin, session: SessionDep) -> dict[str, int]:
    """Write nothing."""
    await session.execute(text("SELECT 1"))
    return {"id": oven_id}


@api.post("/{oven_id}/unlock")
async def unlock(oven_id: int, _: Admin, session: SessionDep, request: Request) -> dict[str, int]:
    """Tell with a secret."""
    after = {"client_secret": "s", "people": [{"phone": "1", "name": "Ada"}], "webhook_token": None}
    await audit.record(session, "oven.unlocked", oven_id, after=after)
    if "fail" in request.query_params:
        raise RuntimeError
    return {"id": oven_id}


service = Service(name="audited", title="Audited", settings=Settings, metadata=Model.metadata, routers=[api])


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}])
async def test_an_act_nobody_told_of_is_told_under_its_endpoint_s_name(run: Run, key: dict[str, str]) -> None:
    async with run(service) as app:
        admin = app.admin()
        for _ in range(2 if key else 1):
            assert (await app.client.post("/v1/admin/ovens/7", headers=admin | key)).status_code == 200
        [told] = await app.acted()
        assert (told.action, told.target, told.before, told.after) == ("heat", "7", None, None)
        assert await app.emitted() == []


async def test_what_writes_nothing_is_no_act(run: Run) -> None:
    async with run(service) as app:
        assert (await app.client.post("/v1/admin/ovens/7/look", headers=app.admin())).status_code == 200
        assert (await app.client.post("/v1/admin/ovens/7", headers=app.member())).status_code == 403
        assert await app.acted() == []


async def test_secrets_and_phones_are_hidden_and_failed_acts_untold(run: Run) -> None:
    async with run(service) as app:
        assert (await app.client.post("/v1/admin/ovens/7/unlock?fail", headers=app.admin())).status_code == 500
        assert await app.acted() == []
        await app.client.post("/v1/admin/ovens/7/unlock", headers=app.admin())
        [told] = await app.acted()
        assert told.action == "oven.unlocked"
        assert told.after == {
            "client_secret": "***",
            "people": [{"phone": "***", "name": "Ada"}],
            "webhook_token": None,
        }


async def test_only_an_admin_s_request_can_be_told_of(run: Run) -> None:
    async with run(service) as app, app.rt.db.session() as session:
        with pytest.raises(LookupError):
            await audit.record(session, "oven.unlocked", 7)
