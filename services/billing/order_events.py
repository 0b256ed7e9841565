"""Order events: a page that waits for a payment hears of it as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

from sqlalchemy import select
from sqlmodel import col
from starlette.responses import StreamingResponse

from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import problems
from services.billing.models import Order
from services.billing.orders import OrderNotFound, OwnOrder, shown

router = new_router(prefix="/v1/orders", tags=["orders"])

LOOK_EVERY_S = 0.4
BEAT_EVERY = 35
"""Looks between two comments that keep proxies from closing a silent stream."""


@router.get(
    "/{order_id}/events",
    response_class=StreamingResponse,
    responses=problems(OrderNotFound)
    | {200: {"content": {"text/event-stream": {}}, "description": "`event: status`, data is the order."}},
)
async def follow_order(order: OwnOrder, session: SessionDep, rt: RuntimeDep) -> StreamingResponse:
    """The order now and at every change of its status, until it is not pending any more."""
    # The stream outlives the request's transaction and must not hold its connection.
    await session.commit()
    return StreamingResponse(
        _follow(rt, order.id),
        media_type="text/event-stream",
        headers={"Cache-Control": "private, no-store", "X-Accel-Buffering": "no"},
    )


async def _follow(rt: Runtime, order_id: UUID) -> AsyncIterator[bytes]:
    told: str | None = None
    looks = 0
    while True:
        async with rt.db.session() as session:
            status = await session.scalar(select(col(Order.status)).where(col(Order.id) == order_id))
            if status != told:
                order = await session.get_one(Order, order_id)
                told = order.status
                yield f"id: {told}\nevent: status\ndata: {shown(order).model_dump_json()}\n\n".encode()
        if told != "pending":
            return
        looks += 1
        if looks % BEAT_EVERY == 0:
            yield b": waiting\n\n"
        await asyncio.sleep(LOOK_EVERY_S)
