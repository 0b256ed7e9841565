"""Order events: a page that waits for a payment, or for its money back, hears of it as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple
from uuid import UUID

from fastapi import Header
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from starlette.responses import Response, StreamingResponse

from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import problems
from services.billing.gifts import gifts_of
from services.billing.models import Order, Refund
from services.billing.orders import OrderNotFound, OwnOrder, shown

router = new_router(prefix="/v1/orders", tags=["orders"])

LastEventId = Annotated[str | None, Header(max_length=100)]

LOOK_EVERY_S = 0.4
BEAT_EVERY = 35
"""Looks between two comments that keep proxies from closing a silent stream."""


@router.get(
    "/{order_id}/events",
    response_class=StreamingResponse,
    responses=problems(OrderNotFound)
    | {
        200: {"content": {"text/event-stream": {}}, "description": "`event: status`, data is the order."},
        204: {"description": "Nothing has changed since `Last-Event-ID`, and nothing is going to: do not reconnect."},
    },
)
async def follow_order(
    order: OwnOrder, session: SessionDep, rt: RuntimeDep, last_event_id: LastEventId = None
) -> Response:
    """The order now and at every change of its status, while it may be paid or a refund of it is under way.

    `Last-Event-ID`, which browsers send when they reconnect, leaves out what was told before.
    """
    held = await _look(session, order.id)
    # The stream outlives the request's transaction and must not hold its connection.
    await session.commit()
    if held.state == last_event_id and not held.moving:
        return Response(status_code=204)
    return StreamingResponse(
        _follow(rt, order.id, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "private, no-store", "X-Accel-Buffering": "no"},
    )


class _Look(NamedTuple):
    state: str
    moving: bool


async def _look(session: AsyncSession, order_id: UUID) -> _Look:
    """How an order stands: a word for its state, and whether that is going to change by itself."""
    refund_under_way = exists().where(
        col(Refund.order_id) == order_id, col(Refund.status) == "pending", col(Refund.cause) != "surplus"
    )
    columns = select(col(Order.status), col(Order.refunded_amount), refund_under_way)
    status, refunded, returning = (await session.execute(columns.where(col(Order.id) == order_id))).one()
    # A second refund of a part leaves the status as it is.
    return _Look(f"{status}-{refunded}" if refunded else status, moving=status == "pending" or returning)


async def _follow(rt: Runtime, order_id: UUID, told: str | None) -> AsyncIterator[bytes]:
    looks = 0
    while True:
        news = None
        async with rt.db.session() as session:
            state, moving = await _look(session, order_id)
            if state != told:
                order = await session.get_one(Order, order_id)
                news = shown(order, await gifts_of(session, rt.settings, [order])).model_dump_json()
        # Told without a connection: whoever reads slowly holds none.
        if news is not None:
            told = state
            yield f"id: {state}\nevent: status\ndata: {news}\n\n".encode()
        if not moving:
            return
        looks += 1
        if looks % BEAT_EVERY == 0:
            yield b": waiting\n\n"
        await asyncio.sleep(LOOK_EVERY_S)
