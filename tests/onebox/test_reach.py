"""Commands that find no database, or no Redis, say which and what to do."""

import pytest
from redis.exceptions import ConnectionError as NoRedis

from onebox.one import migrate
from onebox.reach import OutOfReach, reaching
from onebox.stores import Postgres, Valkey
from tests.onebox.conftest import Heika


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "MEMBERS_DATABASE_URL is not set"),
        ("nowhere", "MEMBERS_DATABASE_URL is no address"),
        ("postgresql+asyncpg://postgres@127.0.0.1:1/members", "The database of members cannot be reached"),
    ],
)
async def test_a_database_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    monkeypatch.setenv("MEMBERS_DATABASE_URL", address)
    with pytest.raises(OutOfReach, match=said):
        await migrate()


def test_redis_is_named_and_other_faults_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_DATABASE_URL", "postgresql+asyncpg://postgres@somewhere/billing")
    with pytest.raises(OutOfReach, match="REDIS_URL"), reaching("billing"):
        raise NoRedis("refused")
    with pytest.raises(KeyError), reaching("billing"):
        raise KeyError("ours")


def test_events_of_one_service_are_told_in_its_own_container(heika: Heika) -> None:
    fresh = heika.command("events", "lag")
    assert (fresh.returncode, "Traceback" in fresh.stderr) == (1, False)
    assert "onebox migrate" in fresh.stderr
    heika.start()
    own = {
        "HEIKA_ENV": "production",
        "BILLING_DATABASE_URL": Postgres(heika.data / "postgres").url("billing"),
        "REDIS_URL": Valkey(heika.data / "valkey").url,
    }
    lag = heika.command("events", "lag", **own)
    assert (lag.returncode, lag.stdout.split(":")[0]) == (0, "billing"), lag.stderr
    assert "not in this environment: members" in lag.stderr
