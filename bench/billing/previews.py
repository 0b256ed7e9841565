"""Previews of an order, through the gateway, beside the same request to a FastAPI endpoint that answers a constant.

Run: `python -m bench.billing.previews [previews]`.
"""

import asyncio
import sys
import time
from typing import Annotated

from fastapi import Body, FastAPI

from bench.billing.shop import bearers, open_shop, percentiles, post, share
from kit import clock
from services.billing.quotes import QuoteIn, QuoteOut, SpanOut

CLIENTS = 8

hello = FastAPI()


@hello.post("/v1/orders/preview")
async def preview(_: Annotated[QuoteIn, Body()]) -> QuoteOut:
    """A preview that knows its answer already."""
    now = clock.now()
    span = SpanOut(starts_at=now, ends_at=now)
    return QuoteOut(subtotal=1990, discount=0, total=1990, currency="CNY", coupon=None, membership_after=span)


async def measure(name: str, app: object, people: list[bytes]) -> None:
    """Print the figures of one preview for each of these people."""
    seconds: list[float] = []

    async def one(bearer: bytes) -> None:
        started = time.perf_counter()
        await post(app, "/v1/orders/preview", bearer, {"plan_code": "black-card-1m"}, 200)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - started)

    took = await share(list(people), CLIENTS, one)
    print(f"{name:34} {len(people) / took:8.1f}/s   {percentiles(seconds)}")


async def main(count: int) -> None:
    """Floor and product, one after the other."""
    async with open_shop() as shop:
        people = await bearers(count)
        await measure("warming up", shop.app, people[: count // 10])
        await measure("floor: FastAPI with a constant", hello, people)
        await measure(f"preview, {CLIENTS} clients", shop.app, people)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000))
