"""Settings: every one is listed, the user's win, and secrets are made once."""

import json
import re
from pathlib import Path

import pytest

from onebox.environment import Place, defaults, fill, kept_secrets, needs_postgres, needs_valkey, place
from onebox.listing import listing
from onebox.trouble import FolderBroken, Trouble
from tests.onebox.conftest import ROOT

PROMISED = (
    "HEIKA_ENV STRIPE_SECRET_KEY STRIPE_WEBHOOK_SECRET STRIPE_API_BASE REDIS_URL MEMBERS_DATABASE_URL "
    "BILLING_DATABASE_URL COURSES_DATABASE_URL REFERRALS_DATABASE_URL SHOWCASE_DATABASE_URL HEIKA_TRUSTED_PROXIES "
    "HEIKA_LIMITS HEIKA_ALLOWED_ORIGINS HEIKA_METRICS_PORT HEIKA_ADMIN_EMAIL HEIKA_ADMIN_PASSWORD HEIKA_PORT HEIKA_DATA"
)


def test_every_promised_setting_is_listed_once_with_its_meaning() -> None:
    found = listing()
    names = [setting.name for setting in found]
    assert names == sorted(set(names))
    assert set(PROMISED.split()) <= set(names)
    assert [setting.name for setting in found if not setting.meaning] == []
    assert "DATABASE_URL" not in names


def test_every_variable_that_the_code_reads_is_listed() -> None:
    names = {setting.name for setting in listing()}
    read = set()
    for folder in ("kit", "contracts", "services", "gateway", "onebox"):
        for file in (ROOT / folder).rglob("*.py"):
            read |= set(re.findall(r'environ(?:\.get\(|\[)"([A-Z][A-Z0-9_]+)"', file.read_text()))
    assert read - names == {"XDG_RUNTIME_DIR"}


def test_the_users_values_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEIKA_PUBLIC_URL", "https://heika.example")
    monkeypatch.delenv("HEIKA_JWKS_URL", raising=False)
    values = defaults(Place(tmp_path, "127.0.0.1", 8123))
    for name in values:
        monkeypatch.setenv(name, "https://heika.example" if name == "HEIKA_PUBLIC_URL" else "")
    fill(values)
    import os  # noqa: PLC0415 - read after it was filled

    assert os.environ["HEIKA_PUBLIC_URL"] == "https://heika.example"
    assert os.environ["HEIKA_JWKS_URL"] == "http://127.0.0.1:8123/.well-known/jwks.json"
    assert os.environ["HEIKA_ENV"] == "sandbox"


def test_own_stores_replace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMBERS", "BILLING", "COURSES", "REFERRALS"):
        monkeypatch.setenv(f"{name}_DATABASE_URL", "postgresql+asyncpg://elsewhere/x")
    monkeypatch.delenv("SHOWCASE_DATABASE_URL", raising=False)
    assert needs_postgres()
    monkeypatch.setenv("SHOWCASE_DATABASE_URL", "postgresql+asyncpg://elsewhere/x")
    assert not needs_postgres()
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert needs_valkey()
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    assert not needs_valkey()


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    first = kept_secrets(tmp_path)
    assert kept_secrets(tmp_path) == first
    assert json.loads((tmp_path / "secrets.json").read_text()) == first
    assert first["STRIPE_WEBHOOK_SECRET"].startswith("whsec_")
    assert min(map(len, first.values())) >= 16
    assert kept_secrets(tmp_path / "..") != first


def test_unreadable_secrets_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"HEIKA_COUPON_KEY":')
    with pytest.raises(FolderBroken, match="Restore it from a backup"):
        kept_secrets(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == '{"HEIKA_COUPON_KEY":'


@pytest.mark.parametrize("port", ["0", "65536", "-1", "8000a", "٨٠٠٠"])
def test_a_port_must_be_one(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("HEIKA_PORT", port)
    with pytest.raises(Trouble, match="HEIKA_PORT"):
        place()
