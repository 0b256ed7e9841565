"""`python -m onebox events`: how far behind listeners are, and dead letters by hand."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from onebox.environment import UPSTREAMS, database_variable, place
from onebox.trouble import Trouble

if TYPE_CHECKING:
    from kit.app import Runtime

app = typer.Typer(
    no_args_is_help=True, help="Events: lag, and the dead letters to list, replay, discard, or tell again."
)
Answer = TypeVar("Answer")
ServiceName = Annotated[str, typer.Argument(help=", ".join(UPSTREAMS))]


@app.command()
def lag() -> None:
    """Events not told yet, and for each listener those not handled yet."""
    from kit import commands  # noqa: PLC0415 - commands import what they need

    for name, state in _each(UPSTREAMS, commands.lag).items():
        groups = ", ".join(f"{group} {waiting}" for group, waiting in sorted(state["groups"].items()))
        print(f"{name}: {state['unpublished']} not told; not handled: {groups or 'no listener yet'}")


@app.command("list")
def list_failures(service: Annotated[str | None, typer.Argument(help="one service; all when left out")] = None) -> None:
    """Events that a service failed to handle."""
    from kit import commands  # noqa: PLC0415

    names = UPSTREAMS if service is None else (service,)
    for name, letters in _each(names, commands.failures).items():
        for letter in letters:
            state = "dead" if letter.next_attempt_at is None else f"next try {letter.next_attempt_at.isoformat()}"
            print(f"{name}  {letter.event_id}  {letter.type}  {letter.attempts} tries  {state}  {letter.error}")


@app.command()
def replay(
    service: ServiceName, event_id: Annotated[UUID | None, typer.Argument(help="all when left out")] = None
) -> None:
    """Try a failed event again now."""
    from kit import commands  # noqa: PLC0415

    done = _each((service,), lambda runtime: commands.replay(runtime, event_id))
    print(f"{done[service]} due now")


@app.command()
def discard(service: ServiceName, event_id: UUID) -> None:
    """Give up a failed event for good."""
    from kit import commands  # noqa: PLC0415

    done = _each((service,), lambda runtime: commands.discard(runtime, event_id))
    print(f"{done[service]} discarded")


@app.command()
def republish(service: ServiceName) -> None:
    """Tell all kept events of a service again; listeners drop those they have handled."""
    from kit import commands  # noqa: PLC0415

    done = _each((service,), commands.republish)
    print(f"{done[service]} told again")


def _each(names: tuple[str, ...], ask: "Callable[[Runtime], Awaitable[Answer]]") -> dict[str, Answer]:
    from onebox.box import Box  # noqa: PLC0415
    from onebox.work import runtime  # noqa: PLC0415

    if unknown := set(names) - set(UPSTREAMS):
        known = ", ".join(UPSTREAMS)
        raise Trouble(f"No service {min(unknown)!r}; there are {known}.", f"没有服务 {min(unknown)},可选:{known}。")

    async def answers() -> dict[str, Answer]:
        found = {}
        for name in names:
            async with runtime(name) as held:
                found[name] = await ask(held)
        return found

    with Box(place()).attached():
        # A service's own container has the address of its own database only.
        elsewhere = [name for name in names if not os.environ.get(database_variable(name))]
        if len(elsewhere) < len(names):
            names = tuple(name for name in names if name not in elsewhere)
            if elsewhere:
                print(f"not in this environment: {', '.join(elsewhere)}", file=sys.stderr)
        return asyncio.run(answers())
