"""The environment of a start on one machine: what the user set stays, everything else is filled in here."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.routes import SERVICES
from onebox.trouble import FolderBroken, Trouble

UPSTREAMS = tuple(name for name in SERVICES if name != "gateway")
ADMIN_EMAIL = "admin@heika.local"
HIGHEST_PORT = 65535
# Where `examples/h5` is served while somebody works on it.
EXAMPLE_PAGES = ("http://127.0.0.1:5173", "http://localhost:5173")

# Made once for a data folder and kept with it: a new coupon, members or code key would make old data unreadable.
_MADE: dict[str, Callable[[], str]] = {
    "HEIKA_COUPON_KEY": lambda: secrets.token_urlsafe(32),
    "HEIKA_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "MEMBERS_KEY": lambda: secrets.token_urlsafe(32),
    "BILLING_CODE_KEY": lambda: secrets.token_urlsafe(32),
    "REFERRALS_KEY": lambda: secrets.token_urlsafe(32),
    "SHOWCASE_KEY": lambda: secrets.token_urlsafe(32),
    "STRIPE_WEBHOOK_SECRET": lambda: f"whsec_{secrets.token_urlsafe(24)}",
}


class BadSetting(Trouble):
    """A setting has a value that cannot be used."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this Heika keeps its data and listens."""

    data: Path
    host: str
    port: int

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def place() -> Place:
    """The place that HEIKA_DATA, HEIKA_HOST and HEIKA_PORT name."""
    port = os.environ.get("HEIKA_PORT") or "8000"
    if not port.isascii() or not port.isdigit() or not 0 < int(port) <= HIGHEST_PORT:
        raise BadSetting(
            f"HEIKA_PORT is {port!r}; it must be a number from 1 to {HIGHEST_PORT}.",
            f"HEIKA_PORT 的值 {port!r} 无效,应为 1 到 {HIGHEST_PORT} 的数字。",
        )
    data = Path(os.environ.get("HEIKA_DATA") or ".heika").expanduser().absolute()
    return Place(data, os.environ.get("HEIKA_HOST") or "127.0.0.1", int(port))


def database_variable(service: str) -> str:
    """The environment variable that holds a service's database address."""
    return f"{service.upper()}_DATABASE_URL"


def needs_postgres() -> bool:
    """Whether any service's database is left to us."""
    return not all(os.environ.get(database_variable(name)) for name in UPSTREAMS)


def needs_valkey() -> bool:
    """Whether Redis is left to us."""
    return not os.environ.get("REDIS_URL")


def fill(values: Mapping[str, str]) -> None:
    """Put these values where the environment has none."""
    for name, value in values.items():
        if not os.environ.get(name):
            os.environ[name] = value


def defaults(where: Place) -> dict[str, str]:
    """What a start at this place means, apart from data stores and secrets."""
    values = {
        "HEIKA_ENV": "sandbox",
        "HEIKA_PUBLIC_URL": where.address,
        "HEIKA_JWKS_URL": f"{where.address}/.well-known/jwks.json",
        "HEIKA_ADMIN_EMAIL": ADMIN_EMAIL,
    }
    if os.environ.get("HEIKA_ENV", "sandbox") == "sandbox":
        pages = (where.address, f"http://localhost:{where.port}", *EXAMPLE_PAGES)
        values["HEIKA_ALLOWED_ORIGINS"] = ",".join(pages)
        # Not through HEIKA_PUBLIC_URL, which may be a tunnel that this machine cannot call.
        values["SANDBOX_WEBHOOK_URL"] = f"{where.address}/v1/webhooks/stripe"
    return values


def kept_secrets(data: Path) -> dict[str, str]:
    """The secrets of a data folder, made at the first start; readable by their owner only."""
    path = data / "secrets.json"
    try:
        kept = json.loads(path.read_text()) if path.exists() else {}
        if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
            raise ValueError("not a table of texts")
    except (OSError, ValueError) as error:
        raise FolderBroken(
            f"{path} cannot be read ({error}). Restore it from a backup: it holds the keys of the data beside it. "
            "`python -m onebox reset` starts afresh and deletes the data.",
            f"无法读取 {path}。它保存着数据的密钥,请从备份恢复;python -m onebox reset 会删除数据重新开始。",
        ) from error
    missing = {name: make() for name, make in _MADE.items() if name not in kept}
    if missing:
        kept |= missing
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(kept, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    return kept
