"""Events: frozen facts that one service tells the others through its outbox."""

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from kit import clock
from kit.ids import new_id
from kit.trace import current_request_id, current_traceparent

EVENTS: dict[str, type["Event"]] = {}
"""Every event class by its wire type, filled as the classes are defined."""


class Event(BaseModel):
    """A fact, told once by its owner; `id` is what makes a delivery a duplicate."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    wire_type: ClassVar[str] = ""

    id: UUID = Field(default_factory=new_id)
    at: AwareDatetime = Field(default_factory=clock.now)

    def __init_subclass__(cls, type: str = "", **options: Any) -> None:  # noqa: A002 - the wire's own word
        super().__init_subclass__(**options)

    @classmethod
    def __pydantic_init_subclass__(cls, type: str = "", **options: Any) -> None:  # noqa: A002
        super().__pydantic_init_subclass__(**options)
        if type:
            if type in EVENTS:
                raise ValueError(f"two event classes with the wire type {type}")
            cls.wire_type = type
            EVENTS[type] = cls

    @classmethod
    def teller(cls) -> str:
        """The service that tells it: the first word of the wire type."""
        return cls.wire_type.split(".", 1)[0]


_EMIT = text(
    "INSERT INTO outbox (event_id, type, at, body, request_id, traceparent) "
    "VALUES (:event_id, :type, :at, CAST(:body AS jsonb), :request_id, :traceparent)"
)
_WAKE = text("SELECT pg_notify('outbox', '')")


def outbox_row(event: Event) -> dict[str, Any]:
    """The outbox columns of an event; for statements that write many at once."""
    return {
        "event_id": event.id,
        "type": event.wire_type,
        "at": event.at,
        "body": event.model_dump_json(),
        "request_id": current_request_id(),
        "traceparent": current_traceparent(),
    }


async def emit(session: AsyncSession, *events: Event) -> None:
    """Write events into the outbox, in the caller's transaction: told if it commits, never if it does not."""
    if not events:
        return
    await write_outbox(await session.connection(), [outbox_row(event) for event in events])


async def write_outbox(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """As `emit`, of rows that the writer of a group made for the requests that it writes for."""
    await connection.execute(_EMIT, rows)
    await connection.execute(_WAKE)
