"""Faults on demand: what shall go wrong with the next calls of the provider, or with its next deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import router as new_router
from kit.db import SessionDep
from kit.shapes import Out, StrictIn, Text
from services.billing.sandbox.models import SandboxFault

if TYPE_CHECKING:
    from kit.app import Runtime

router = new_router(prefix="/v1/sandbox/faults", tags=["sandbox"])

Target = Literal["calls", "deliveries"]
Kind = Literal["delay", "hang", "error", "drop", "duplicate", "reorder"]
POSSIBLE: dict[Target, frozenset[Kind]] = {
    "calls": frozenset({"delay", "hang", "error", "drop"}),
    "deliveries": frozenset({"delay", "error", "drop", "duplicate", "reorder"}),
}
MAX_FAULTS = 50
MAX_TIMES = 10_000
MAX_SECONDS = 86_400.0

_TAKE = text(
    "UPDATE sandbox_fault SET remaining = remaining - 1 WHERE id = (SELECT id FROM sandbox_fault "
    "WHERE target = :target AND remaining > 0 AND starts_with(:subject, match) ORDER BY id LIMIT 1 FOR UPDATE) "
    "AND remaining > 0 RETURNING kind, seconds"
)


class FaultIn(StrictIn):
    """One fault.

    `calls`: `delay` answers `seconds` late, `hang` does nothing and cuts the connection after `seconds`, `error` answers
    500 and does nothing, `drop` does it and cuts the answer. `deliveries`: `delay` sends `seconds` later, `error` fails
    before sending, `drop` loses the receiver's answer, `duplicate` sends twice, `reorder` sends after the others.
    """

    target: Target
    kind: Kind
    times: Annotated[int, Field(strict=True, ge=1, le=MAX_TIMES)] = 1
    seconds: Annotated[float, Field(strict=True, ge=0, le=MAX_SECONDS)] = 1.0
    match: Text(0, 200) = Field("", description="only calls whose path, or events whose type, starts with this")  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _is_possible(self) -> "FaultIn":
        if self.kind not in POSSIBLE[self.target]:
            raise ValueError(f"{self.target} know {', '.join(sorted(POSSIBLE[self.target]))}")
        return self


class FaultsIn(StrictIn):
    """All faults wished for; an empty list ends them."""

    faults: Annotated[list[FaultIn], Field(max_length=MAX_FAULTS)]


class FaultOut(Out):
    """A fault that is still to come, so many times."""

    target: str
    kind: str
    remaining: int
    seconds: float
    match: str


class FaultsOut(Out):
    """The faults to come."""

    faults: list[FaultOut]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call or delivery."""

    kind: Kind
    seconds: float


@router.put("")
async def put_faults(wanted: FaultsIn, session: SessionDep) -> FaultsOut:
    """Ask for faults in the payment provider, in place of those asked for before."""
    await session.execute(delete(SandboxFault))
    for fault in wanted.faults:
        session.add(SandboxFault(**fault.model_dump(exclude={"times"}), remaining=fault.times))
    await session.flush()
    return await _remaining(session)


@router.get("")
async def list_faults(session: SessionDep) -> FaultsOut:
    """The faults still to come."""
    return await _remaining(session)


async def _remaining(session: AsyncSession) -> FaultsOut:
    row: Any = SandboxFault
    rows: Sequence[SandboxFault] = (await session.scalars(select(row).where(row.remaining > 0).order_by(row.id))).all()
    return FaultsOut(faults=[FaultOut.model_validate(item) for item in rows])


async def take(rt: "Runtime", target: Target, subject: str) -> Fault | None:
    """Use up one fault for this call or delivery, if one is wished for; in a transaction of its own."""
    async with rt.db.session() as session, session.begin():
        row = (await session.execute(_TAKE, {"target": target, "subject": subject})).one_or_none()
    return Fault(row.kind, row.seconds) if row else None
