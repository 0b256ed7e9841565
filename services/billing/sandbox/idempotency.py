"""`Idempotency-Key` as Stripe keeps it: the first answer for 24 hours, whatever it was, with the effect in one transaction."""

import zlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from sqlalchemy import delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.text import dump_json
from services.billing.sandbox.models import SandboxIdempotency
from services.billing.sandbox.shapes import Json
from services.billing.sandbox.wire import Refusal

if TYPE_CHECKING:
    from kit.app import Runtime

KEEP = timedelta(hours=24)
MAX_KEY = 255
_SPACE = zlib.crc32(b"sandbox idempotency") - 2**31
_LOCK = text("SELECT pg_try_advisory_xact_lock(:space, hashtext(:key))")


async def hold(session: AsyncSession, key: str, method: str, path: str, params: Json) -> SandboxIdempotency | None:
    """Take the key until the transaction ends; the stored answer if there is one.

    Refusal: 409 while another request holds it, 400 when it was used with other parameters.
    """
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise Refusal(f"Idempotency-Key has 1 to {MAX_KEY} printable characters.", kind="idempotency_error")
    if not (await session.execute(_LOCK, {"space": _SPACE, "key": key})).scalar_one():
        message = f"There is currently another in-progress request using this Idempotency-Key ({key})."
        raise Refusal(message, "idempotency_key_in_use", status=409, kind="idempotency_error")
    stored = await session.get(SandboxIdempotency, key)
    if stored is None or stored.created_at <= clock.now() - KEEP:
        return None
    if stored.fingerprint != _fingerprint(method, path, params):
        message = (
            "Keys for idempotent requests can only be used with the same parameters they were first used with. "
            f"Try using a key other than '{key}' if you meant to execute a different request."
        )
        raise Refusal(message, kind="idempotency_error")
    return stored


async def once(
    session: AsyncSession,
    key: str,
    method: str,
    path: str,
    params: Json,
    run: Callable[[], Awaitable[tuple[int, Json]]],
) -> tuple[int, bytes]:
    """Run a held key's request and store its answer, a refusal too; the effect of one that is raised is undone."""
    try:
        async with session.begin_nested():
            status, answer = await run()
            body = dump_json(answer)
    except Refusal as refusal:
        status, body = refusal.status, dump_json(refusal.body())
    row = {
        "fingerprint": _fingerprint(method, path, params),
        "status": status,
        "body": body,
        "created_at": clock.now(),
    }
    stored = insert(SandboxIdempotency).values(key=key, **row)
    await session.execute(stored.on_conflict_do_update(index_elements=["key"], set_=row))
    return status, body


def _fingerprint(method: str, path: str, params: Json) -> bytes:
    return sha256(dump_json([method, path, _sorted(params)])).digest()


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return sorted((name, _sorted(item)) for name, item in value.items())
    return value


async def forget_keys(rt: "Runtime") -> int:
    """Drop what is older than Stripe would keep it; how many."""
    async with rt.db.session() as session, session.begin():
        old = delete(SandboxIdempotency).where(SandboxIdempotency.created_at <= clock.now() - KEEP)  # type: ignore[arg-type]
        result = await session.execute(old)
        return int(getattr(result, "rowcount", 0))
