"""10,000 webhooks to 50 endpoints, 5 of them hanging: how late the healthy ones hear, beside the same without those 5.

Run: `python -m bench.referrals.webhooks [deliveries]`. One process of the service, as it is deployed, on durable stores; the
receivers and whoever writes the messages are this process. First all messages are written at once, then at a steady pace;
each endpoint must hear each of its own once, in order, signed.
"""

import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg
from standardwebhooks import Webhook

from bench.http import Server, start
from kit import clock
from kit.ids import new_id
from kit.migrations import upgrade
from kit.vault import open_vault
from onebox.stores import Postgres, Valkey
from services.referrals.settings import SANDBOX_WEBHOOK_KEY
from services.referrals.webhook_messages import message

HEALTHY, HANGING = 45, 5
PACE = 250
TICK_S = 0.02
PORT = 8999
WAIT_S = 120.0
KIND = "order.refunded"

_ENDPOINT = """
WITH who AS (
    INSERT INTO partner (id, name, email, client_id, secret_hash, active, version, client_version, created_at)
    VALUES ($1, 'bench', 'bench@example.com', gen_random_uuid(), '', true, 1, 1, $4) RETURNING id
) INSERT INTO webhook_endpoint (id, partner_id, url, events, status, sealed_secret, old_secrets, created_at)
SELECT id, id, $2, ARRAY[$5], 'active', $3, '[]', $4 FROM who
"""
_MESSAGES = """
WITH row AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) WITH ORDINALITY
        AS row (id, partner_id, reference, body, place)
), told AS (
    INSERT INTO webhook_message (id, partner_id, type, reference, body, at)
    SELECT id, partner_id, $5, reference, body, $6 FROM row RETURNING id
) INSERT INTO webhook_delivery (id, endpoint_id, message_id, status, tries, next_attempt_at, attempts, created_at)
SELECT gen_random_uuid(), row.partner_id, told.id, 'pending', 0, $6, '[]', $6 FROM row JOIN told USING (id) ORDER BY place
"""


@dataclass
class Ear:
    """An endpoint: when it heard each message, in order; or one that never answers."""

    id: UUID = field(default_factory=new_id)
    secret: str = field(default_factory=lambda: f"whsec_{b64encode(secrets.token_bytes(32)).decode()}")
    hangs: bool = False
    told: list[tuple[str, float]] = field(default_factory=list)
    heard: list[tuple[str, float]] = field(default_factory=list)
    checked: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer 204 to each request of a connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                at = time.monotonic()
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
                body = await reader.readexactly(int(headers["Content-Length"]))
                if self.hangs:
                    await asyncio.sleep(3600)
                if not self.checked:
                    Webhook(self.secret).verify(body, headers)
                    self.checked = True
                self.heard.append((headers["webhook-id"], at))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    def late(self) -> list[float]:
        """Seconds from the commit to each message's arrival, which must have been once and in order."""
        if [message_id for message_id, _ in self.heard] != [message_id for message_id, _ in self.told]:
            raise RuntimeError(f"told {len(self.told)}, heard {len(self.heard)}, or not in order")
        return [heard - told for (_, told), (_, heard) in zip(self.told, self.heard, strict=True)]


async def open_ears(line: asyncpg.Connection, count: int, *, hangs: bool) -> list[Ear]:
    """So many partners with an endpoint each."""
    ears = [Ear(hangs=hangs) for _ in range(count)]
    vault = open_vault(SANDBOX_WEBHOOK_KEY)
    for ear in ears:
        server = await asyncio.start_server(ear.serve, "127.0.0.1", 0, backlog=128)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await line.execute(_ENDPOINT, ear.id, url, vault.seal(ear.secret), clock.now(), KIND)
    return ears


async def tell(line: asyncpg.Connection, ears: list[Ear]) -> None:
    """Write one message to each of these, in one transaction, as the service does when something happened."""
    now = clock.now()
    told = {"member_id": new_id(), "order_id": new_id(), "amount": 1, "currency": "CNY", "refunded_at": now}
    rows = [message(ear.id, KIND, new_id(), now, told) for ear in ears]
    columns = [[row[name] for row in rows] for name in ("id", "partner_id", "reference", "body")]
    await line.execute(_MESSAGES, *columns, KIND, now)
    at = time.monotonic()
    for ear, row in zip(ears, rows, strict=True):
        ear.told.append((f"msg_{row['id'].hex}", at))


async def run(line: asyncpg.Connection, server: Server, name: str, ears: list[Ear], count: int, pace: int) -> float:
    """Write so many messages to these in turn, all at once or so many a second; the healthy ones' p99 in seconds."""
    for ear in ears:
        ear.told, ear.heard = [], []
    started, cpu = time.monotonic(), server.cpu_seconds()
    portion = max(1, int(pace * TICK_S)) if pace else 500
    for first in range(0, count, portion):
        if pace and (wait := started + first / pace - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        numbers = range(first, min(first + portion, count))
        # An endpoint may be told more than once in a portion: each of these is a transaction of its own.
        for part in range(0, len(numbers), len(ears)):
            await tell(line, [ears[number % len(ears)] for number in numbers[part : part + len(ears)]])
    healthy = [ear for ear in ears if not ear.hangs]
    while any(len(ear.heard) < len(ear.told) for ear in healthy):
        if time.monotonic() - started > WAIT_S:
            raise RuntimeError(f"{sum(len(ear.heard) for ear in healthy)} heard after {WAIT_S:g} s")
        await asyncio.sleep(0.02)
    late = [seconds for ear in healthy for seconds in ear.late()]
    took, used = time.monotonic() - started, server.cpu_seconds() - cpu
    cuts = statistics.quantiles(late, n=100)
    print(
        f"{name:32} p50 {cuts[49] * 1000:7.0f} ms   p99 {cuts[98] * 1000:7.0f} ms   {len(late) / took:5.0f}/s"
        f"   {used / len(late) * 1000:.2f} ms of CPU each"
    )
    return cuts[98]


async def compare(url: str, server: Server, count: int) -> None:
    """The healthy ones alone, then beside the hanging ones: as a flood, and at a pace."""
    line = await asyncpg.connect(url)
    healthy = await open_ears(line, HEALTHY, hangs=False)
    alone = count * HEALTHY // (HEALTHY + HANGING)
    for pace, shape in ((0, "all at once"), (PACE, f"{PACE} a second")):
        hanging: list[Ear] = []
        without = await run(line, server, f"{shape}, {HEALTHY} endpoints", healthy, alone, pace * alone // count)
        hanging = await open_ears(line, HANGING, hangs=True)
        beside = await run(line, server, f"  and {HANGING} that hang", healthy + hanging, count, pace)
        print(f"  p99 beside them / alone: {beside / without:.2f}")
        await line.execute(
            "UPDATE webhook_endpoint SET status = 'disabled' WHERE id = ANY($1)", [ear.id for ear in hanging]
        )
    await line.close()


def main(count: int) -> None:
    """Start stores and service in a folder that is gone afterwards, and compare."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        postgres.start()
        valkey.start()
        try:
            postgres.ensure_database("webhooks")
            url = postgres.url("webhooks")
            asyncio.run(upgrade("referrals", url))
            environment = {
                "HEIKA_ENV": "sandbox",
                "HEIKA_COUPON_KEY": "k" * 32,
                "HEIKA_LOG_LEVEL": "warning",
                "REFERRALS_DATABASE_URL": url,
                "REDIS_URL": valkey.url,
                "WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
            }
            command = [sys.executable, "-m", "uvicorn", "--factory", "services.referrals.app:app"]
            command += ["--host", "127.0.0.1", "--port", str(PORT), "--log-level", "warning"]
            server = start(command, environment, PORT, "/healthz", folder / "log")
            try:
                asyncio.run(compare(url.replace("+asyncpg", ""), server, count))
                print((folder / "log").read_text()[-3000:], end="")
            finally:
                server.process.terminate()
                server.process.wait(10)
        finally:
            valkey.stop()
            postgres.stop()
            postgres.erase()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
