"""Alive and ready: what an orchestrator asks a process."""

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from redis.exceptions import RedisError
from sqlalchemy import text
from starlette.responses import Response

from kit.http import json_response
from kit.metrics import READY

if TYPE_CHECKING:
    from kit.app import Runtime

CHECK_S = 1.5

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def alive() -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """The process and each thing it depends on; 503 unless all answer. Redis may be away: nothing is lost without it."""
    runtime: Runtime = request.app.state.runtime
    database, redis = await asyncio.gather(_database(runtime), _redis(runtime))
    READY.labels(runtime.service).set(int(database))
    parts = {"database": "ok" if database else "away", "redis": "ok" if redis else "away"}
    return json_response({"status": "ok" if database else "unavailable", **parts}, 200 if database else 503)


async def _database(runtime: "Runtime") -> bool:
    try:
        async with asyncio.timeout(CHECK_S), runtime.db.session() as session:
            await session.execute(text("SELECT 1"))
    except Exception:  # noqa: BLE001 - whatever stops a SELECT 1 means not ready
        return False
    return True


async def _redis(runtime: "Runtime") -> bool:
    try:
        async with asyncio.timeout(CHECK_S):
            await runtime.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return False
    return True
