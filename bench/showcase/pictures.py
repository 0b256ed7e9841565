"""A burst of 25-megapixel pictures at a whole Heika: how long until all are stored, and how much memory its process takes.

Run: `python -m bench.showcase.pictures` (about a minute). Each picture is another one, as heavy as phones make them.
"""

import asyncio
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
from PIL import Image

from bench.http import start

PORT: Final = 8962
BURST: Final = 16
SIZE: Final = (5760, 4320)
PHONE: Final = "13900000077"


def pictures(kind: str, count: int) -> list[bytes]:
    """So many different pictures of 25 megapixels."""
    noise = Image.effect_noise((SIZE[0] // 8, SIZE[1] // 8), 60).convert("RGB").resize(SIZE)
    made = []
    for number in range(count):
        noise.paste((number, 0, 0), (0, 0, 64, 64))
        out = io.BytesIO()
        # WebP's slower methods would be what is waited for here.
        noise.save(out, kind, quality=80, method=0)
        made.append(out.getvalue())
    return made


def memory(process_id: int, field: str) -> int:
    """VmRSS or VmHWM of a process, in MiB."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) // 1024


async def burst(client: httpx.AsyncClient, contents: list[bytes], process_id: int) -> str:
    """Upload all at once; what came of it."""
    before, started = memory(process_id, "VmRSS"), time.perf_counter()
    files = [{"file": ("cake", content, "application/octet-stream")} for content in contents]
    answers = await asyncio.gather(*(client.post("/v1/uploads", files=file) for file in files))
    took = time.perf_counter() - started
    codes = [answer.status_code for answer in answers]
    stored, busy = codes.count(httpx.codes.CREATED), codes.count(httpx.codes.SERVICE_UNAVAILABLE)
    if stored + busy < len(contents):
        raise RuntimeError(f"neither stored nor asked to come back: {codes}")
    peak = memory(process_id, "VmHWM")
    return f"{stored} stored, {busy} asked to come back, {took:.1f} s; {before} MiB before, {peak} MiB at most"


async def measure(folder: Path) -> None:
    """Both bursts against one server."""
    environment = {"HEIKA_DATA": str(folder / "data"), "HEIKA_PORT": str(PORT), "HEIKA_LIMITS": "off"}
    server = start([sys.executable, "-m", "onebox", "up"], environment, PORT, "/readyz", folder / "log")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=300) as client:
            await client.post("/v1/auth/otp", json={"phone": PHONE})
            code = (await client.get("/v1/sandbox/otp", params={"phone": PHONE})).json()["code"]
            pair = (await client.post("/v1/auth/otp/verify", json={"phone": PHONE, "code": code})).json()
            client.headers["Authorization"] = f"Bearer {pair['access_token']}"
            for kind in ("JPEG", "WEBP"):
                contents = await asyncio.to_thread(pictures, kind, BURST)
                await asyncio.to_thread(Path(f"/proc/{server.process.pid}/clear_refs").write_text, "5")
                size = sum(map(len, contents)) >> 20
                print(
                    f"{BURST} {kind} of 25 megapixels, {size} MiB: {await burst(client, contents, server.process.pid)}"
                )
    finally:
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(measure(Path(place)))
