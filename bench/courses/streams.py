"""Open event streams of one live lesson: memory for each, and how late the last of them hears of a question.

Run against a sandbox that is up: `python -m bench.courses.streams URL PID EMAIL PASSWORD [STREAMS]`; PID is the process
whose memory is read, the gateway's with everything in it. The lesson is made for the occasion.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpx

ROUNDS = 5


def resident(pid: int) -> int:
    """KiB of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


class Ear(asyncio.Protocol):
    """One open stream, which counts the questions it heard."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.heard = 0
        self.standing = asyncio.get_running_loop().create_future()
        self.news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        cast("asyncio.Transport", transport).write(f"GET {self.path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Count."""
        self.heard += data.count(b"event: question")
        self.news.set()
        if b"event: status" in data and not self.standing.done():
            self.standing.set_result(None)

    async def until(self, count: int) -> None:
        """Wait for so many questions."""
        while self.heard < count:
            self.news.clear()
            await self.news.wait()


def lesson(client: httpx.Client, email: str, password: str) -> str:
    """A free lesson that is live; the client is its admin from now on."""
    form = {"grant_type": "password", "username": email, "password": password}
    token = client.post("/v1/auth/token", data=form).raise_for_status().json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    start = datetime.now(UTC) + timedelta(minutes=5)
    span = {"starts_at": start.isoformat(), "ends_at": (start + timedelta(hours=1)).isoformat()}
    body = span | {"title": "bench", "instructor": "bench", "access": [{"kind": "free"}]}
    lesson_id = str(client.post("/v1/admin/live-lessons", json=body).raise_for_status().json()["id"])
    for status in ("scheduled", "live"):
        path = f"/v1/admin/live-lessons/{lesson_id}/transitions"
        client.post(path, json={"to": status}).raise_for_status()
    return lesson_id


def member(client: httpx.Client) -> dict[str, str]:
    """Headers of a fresh member."""
    phone = f"+86138{time.time_ns() % 10**8:08d}"
    client.post("/v1/auth/otp", json={"phone": phone}).raise_for_status()
    code = client.get("/v1/sandbox/otp", params={"phone": phone}).raise_for_status().json()["code"]
    signed_in = client.post("/v1/auth/otp/verify", json={"phone": phone, "code": code}).raise_for_status().json()
    return {"Authorization": f"Bearer {signed_in['access_token']}"}


async def measure(url: str, pid: int, email: str, password: str, streams: int) -> None:
    """Open them, ask, and say what it took."""
    with httpx.Client(base_url=url, timeout=30) as client:
        asker = member(client)
        lesson_id = lesson(client, email, password)
        address, loop = urlsplit(url), asyncio.get_running_loop()
        path = f"/v1/live-lessons/{lesson_id}"
        before = resident(pid)
        ears: list[Ear] = []
        for _ in range(streams):
            _, ear = await loop.create_connection(lambda: Ear(f"{path}/events"), address.hostname, address.port)
            ears.append(ear)
            if len(ears) % 50 == 0:
                await asyncio.gather(*(ear.standing for ear in ears))
        await asyncio.gather(*(ear.standing for ear in ears))
        held = resident(pid) - before
        print(f"{streams} streams open: {held / 1024:.1f} MiB more, {held / streams:.1f} KiB each")
        for turn in range(1, ROUNDS + 1):
            begun = time.perf_counter()
            ask = {"json": {"text": f"question {turn}"}, "headers": asker}
            await asyncio.to_thread(lambda ask=ask: client.post(f"{path}/questions", **ask).raise_for_status())
            answered = time.perf_counter()
            await asyncio.gather(*(ear.until(turn) for ear in ears))
            print(
                f"question {turn}: answered after {answered - begun:.3f} s, heard by all after {time.perf_counter() - begun:.3f} s"
            )


if __name__ == "__main__":
    words = sys.argv[1:]
    asyncio.run(measure(words[0], int(words[1]), words[2], words[3], int(words[4]) if len(words) > 4 else 1000))  # noqa: PLR2004
