"""What an operation of the provider is, and the call it gets."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.sandbox.shapes import Json
from services.billing.settings import Settings


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its transaction, its checked parameters, the id in its path, if any, and the path itself."""

    session: AsyncSession
    settings: Settings
    values: Json
    key: str
    path: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint: `shape` is the SDK's TypedDict of its parameters, `takes` those of them the sandbox acts on."""

    method: str
    path: str
    shape: type
    takes: frozenset[str]
    run: Callable[[Call], Awaitable[Json]]


def operation(method: str, path: str, shape: Any, takes: str, run: Callable[[Call], Awaitable[Json]]) -> Operation:
    """An operation; `takes` lists parameters by their dotted names, `x.*` for everything inside x."""
    return Operation(method, path, shape, frozenset(takes.split()) | {"expand"}, run)
