"""The databases made at installation: a first start's copy of them is complete, and shares no secret with another."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox import prepared
from onebox.environment import UPSTREAMS
from onebox.postgres import Postgres
from tests.harness import new_folder

TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
WRITTEN = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    " AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = new_folder()
    yield folder
    shutil.rmtree(folder)


def test_a_first_start_copies_what_was_prepared_and_makes_it_when_nothing_fits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prepared, "HOME", tmp_path / "home")
    monkeypatch.setattr(prepared, "CLUSTER", tmp_path / "home" / "pgdata")
    assert prepared.find() is None
    made = prepared.make()
    assert prepared.find() == made

    store = Postgres(folder, durable=False, prepared=made)
    try:
        store.start()
        have = store.query("SELECT datname FROM pg_database").split()
        assert set(UPSTREAMS) <= set(have)
        # Referrals' migrations write rows, which might be a secret: its own first start runs them.
        assert {name: store.query(TABLES, database=name) == "0\n" for name in UPSTREAMS} == {
            name: name == "referrals" for name in UPSTREAMS
        }
        assert [store.query(WRITTEN, database=name) for name in UPSTREAMS] == [""] * len(UPSTREAMS)
    finally:
        store.stop()
        store.erase()

    unfit = Postgres(folder, durable=False, prepared=tmp_path / "gone")
    try:
        unfit.start()
        assert "members" not in unfit.query("SELECT datname FROM pg_database").split()
    finally:
        unfit.stop()
        unfit.erase()

    # A later migration is run at the start; one that is no longer what it was, or gone, spoils the copy.
    makers = prepared._makers()
    monkeypatch.setattr(prepared, "_makers", lambda: makers | {"services/members/migrations/versions/9999_new.py": "1"})
    assert prepared.find() == made
    for other in (makers | {"kit/migrations.py": "1"}, makers | {"postgres": "19"}, {"postgres": makers["postgres"]}):
        monkeypatch.setattr(prepared, "_makers", lambda other=other: other)
        assert prepared.find() is None
