"""The ledger: the database itself refuses what does not balance, and every change of the past."""

import csv
import io
from datetime import timedelta

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from kit import clock
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


async def test_the_books_role_has_no_right_to_change_them(till: Till) -> None:
    await till.buy(new_id())
    url = till.api.rt.db.engine.url
    role = f"clerk_{new_id().hex}"
    # The embedded owner is a superuser, whom no right binds: here the tables are somebody's who is none.
    await till.api.sql(f"CREATE ROLE {role} LOGIN")
    try:
        await till.api.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
        for table in ("ledger_entry", "ledger_line", "revenue_recognition"):
            await till.api.sql(f"ALTER TABLE {table} OWNER TO {role}")
        await till.api.sql(f'GRANT SELECT, INSERT, UPDATE ON "order" TO {role}')
        clerk = await asyncpg.connect(user=role, database=url.database, host=url.query["host"])
        try:
            for change in (
                "UPDATE ledger_entry SET order_id = order_id",
                "UPDATE ledger_line SET debit = debit",
                "UPDATE revenue_recognition SET day = day",
                "DELETE FROM ledger_entry",
                "DELETE FROM ledger_line",
                "DELETE FROM revenue_recognition",
                "TRUNCATE ledger_entry",
                "TRUNCATE ledger_line",
                "TRUNCATE revenue_recognition",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await clerk.execute(change)
            # Writing is all that is left, and enough.
            entry = new_id()
            async with clerk.transaction():
                await clerk.execute(ENTRY.replace(":id", "$1"), entry)
                lines = "($1, 1, 'cash', 'CNY', 5, 0), ($1, 2, 'provider_receivable', 'CNY', 0, 5)"
                await clerk.execute(LINE + lines, entry)
            with pytest.raises(asyncpg.RaiseError, match="there is no ledger entry"):
                await clerk.execute(LINE + lines, new_id())
        finally:
            await clerk.close()
    finally:
        await till.api.sql(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        await till.api.sql(f"DROP OWNED BY {role}")
        await till.api.sql(f"DROP ROLE {role}")
    assert await till.balanced() == {"cash": 5, "provider_receivable": 1985, "deferred_revenue": -1990}


async def test_the_trial_balance_tells_how_the_books_stood(till: Till) -> None:
    before = clock.now()
    await till.buy(new_id())
    between = clock.now()
    till.api.clock.advance(timedelta(minutes=5))
    await till.buy(new_id())
    admin = till.api.admin("orders:read")
    path = "/v1/admin/ledger/trial-balance"
    answers = [
        (await till.client.get(path, params={"at": at.isoformat()}, headers=admin)).json()
        for at in (before, between, clock.now())
    ]
    assert answers[0] == {"balanced": True, "accounts": []}
    assert answers[1]["accounts"] == [
        {"account": "deferred_revenue", "currency": "CNY", "group": "liability", "debit": 0, "credit": 1990},
        {"account": "provider_receivable", "currency": "CNY", "group": "asset", "debit": 1990, "credit": 0},
    ]
    assert [account["credit"] + account["debit"] for account in answers[2]["accounts"]] == [3980, 3980]


async def test_the_books_of_some_days_are_a_file(till: Till) -> None:
    order = await till.buy(new_id())
    till.api.clock.advance(timedelta(days=2))
    await till.buy(new_id())
    admin = till.api.admin("orders:read")
    path = "/v1/admin/ledger/entries.csv"
    first = (clock.today() - timedelta(days=2)).isoformat()
    answer = await till.client.get(path, params={"from": first, "to": first}, headers=admin)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    header, *rows = csv.reader(io.StringIO(answer.text.removeprefix("\ufeff")))
    assert header == ["at", "entry_id", "kind", "order_id", "account", "debit", "credit", "currency"]
    assert [row[2:] for row in rows] == [
        ["payment", order["id"], "provider_receivable", "1990", "0", "CNY"],
        ["payment", order["id"], "deferred_revenue", "0", "1990", "CNY"],
    ]
    assert len((await till.client.get(path, headers=admin)).text.splitlines()) == 1 + 4
    for wrong in ({"from": "2026-02-02", "to": "2026-02-01"}, {"from": "2020-01-01", "to": "2026-01-01"}):
        refused = await till.client.get(path, params=wrong, headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_period")
    assert (await till.client.get(path, headers=till.api.member())).status_code == 403


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
async def test_the_migrations_make_exactly_the_declared_tables(till: Till) -> None:
    async with till.api.rt.db.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), Model.metadata)
        )
    assert differences == []
