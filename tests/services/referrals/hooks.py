"""A partner's server that hears webhooks, and what the tests of them ask for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from standardwebhooks import Webhook

from tests.harness import Api
from tests.onebox.conftest import free_port
from tests.services.referrals.test_partners import by


@dataclass
class Receiver:
    """A partner's server on loopback: it keeps what it hears and answers what it is told to, 200 otherwise."""

    url: str = ""
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    hang: bool = False
    arrivals: "asyncio.Queue[None]" = field(default_factory=asyncio.Queue)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.arrivals.put_nowait(None)
                if self.hang:
                    await asyncio.sleep(60)
                self.heard.append((headers, body))
                answer = self.answers.pop(0) if self.answers else "200 OK"
                status, _, more = answer.partition("|")
                extra = f"{more}\r\n" if more else ""
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n{extra}\r\nok".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def types(self) -> list[str]:
        return [orjson.loads(body)["type"] for _, body in self.heard]


@asynccontextmanager
async def listening(*, hang: bool = False) -> AsyncIterator[Receiver]:
    """A receiver at an address of its own."""
    receiver = Receiver(hang=hang)
    # What is delivered again after its end must not meet another test's server.
    port = free_port()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    receiver.url = f"http://127.0.0.1:{port}/hooks"
    yield receiver
    server.close()


async def endpoint(api: Api, who: dict[str, Any], url: str, *events: str) -> dict[str, Any]:
    body = {"url": url, "events": list(events or ["member.registered", "order.paid", "commission.created"])}
    answer = await api.client.post("/v1/partner/webhook-endpoints", headers=by(api, who), json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def deliveries(api: Api, who: dict[str, Any], made: dict[str, Any], **params: str) -> list[dict[str, Any]]:
    path = f"/v1/partner/webhook-endpoints/{made['id']}/deliveries"
    answer = await api.client.get(path, headers=by(api, who), params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def verified(secret: str, heard: tuple[dict[str, str], bytes]) -> Any:
    headers, body = heard
    return Webhook(secret).verify(body, headers)
