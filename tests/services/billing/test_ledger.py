"""The ledger: the database itself refuses what does not balance, and every change of the past."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from kit.ids import new_id
from services.billing.models import Model
from tests.services.billing.till import Till

ENTRY = "INSERT INTO ledger_entry (id, kind, source_id, at) VALUES (:id, 'test', :id, now())"
LINE = "INSERT INTO ledger_line (entry_id, position, account, currency, debit, credit) VALUES "


async def test_an_entry_that_does_not_balance_is_not_committed(till: Till) -> None:
    entry = new_id()
    lines = f"{LINE} (:id, 1, 'a', 'CNY', 5, 0), (:id, 2, 'b', 'CNY', 0, 4)"
    with pytest.raises(DBAPIError, match="does not balance"):
        await till.api.sql(f"WITH e AS ({ENTRY}) {lines}", id=entry)
    with pytest.raises(DBAPIError, match="does not balance"):
        await till.api.sql(
            f"WITH e AS ({ENTRY}) {LINE} (:id, 1, 'a', 'CNY', 5, 0), (:id, 2, 'b', 'USD', 0, 5)", id=entry
        )
    with pytest.raises(DBAPIError, match="has no lines"):
        await till.api.sql(ENTRY, id=entry)
    assert await till.api.sql("SELECT count(*) FROM ledger_entry") == [(0,)]


async def test_the_past_cannot_be_changed(till: Till) -> None:
    await till.buy(new_id())
    for statement in (
        "UPDATE ledger_line SET debit = debit + 1",
        "UPDATE ledger_entry SET kind = 'x'",
        "DELETE FROM ledger_line",
        "DELETE FROM ledger_entry",
        "TRUNCATE ledger_line",
        "TRUNCATE ledger_entry CASCADE",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            await till.api.sql(statement)
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}


async def test_an_admin_reads_the_books_newest_first(till: Till) -> None:
    first, second = await till.buy(new_id()), await till.buy(new_id(), plan_code="black-card-3m")
    admin = till.api.admin("orders:read")
    books = (await till.client.get("/v1/admin/ledger/entries", headers=admin)).json()["items"]
    assert [(entry["order_id"], entry["kind"]) for entry in books] == [
        (second["id"], "payment"),
        (first["id"], "payment"),
    ]
    assert books[0]["lines"] == [
        {"account": "provider_receivable", "debit": 4900, "credit": 0, "currency": "CNY"},
        {"account": "deferred_revenue", "debit": 0, "credit": 4900, "currency": "CNY"},
    ]
    one = await till.client.get("/v1/admin/ledger/entries", params={"order_id": first["id"]}, headers=admin)
    assert [entry["order_id"] for entry in one.json()["items"]] == [first["id"]]
    for path in ("entries", "trial-balance"):
        refused = await till.client.get(f"/v1/admin/ledger/{path}", headers=till.api.member())
        assert refused.status_code == 403


async def test_admins_find_orders_by_member_number_and_status(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    await till.order(new_id())
    admin = till.api.admin("orders:read")
    for params in ({"member_id": str(member)}, {"number": order["number"].lower()}, {"status": "paid"}):
        found = (await till.client.get("/v1/admin/orders", params=params, headers=admin)).json()["items"]
        assert [(one["id"], one["member_id"]) for one in found] == [(order["id"], str(member))]
    assert (await till.client.get("/v1/admin/orders", headers=till.api.admin("plans:read"))).status_code == 403


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
async def test_the_migrations_make_exactly_the_declared_tables(till: Till) -> None:
    async with till.api.rt.db.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), Model.metadata)
        )
    assert differences == []
