"""Partners' clients (RFC 6749 4.4): a client's id and secret become a short access token, without a refresh token."""

import asyncio
import base64
import binascii
import hashlib
import hmac
from datetime import timedelta
from typing import Final, Literal
from urllib.parse import unquote_plus

from fastapi import Request
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.referrals import PartnerChanged
from kit import clock
from kit.auth import TOKEN_SECONDS
from kit.errors import NotAuthenticated
from kit.limits import limit, limit_address
from kit.shapes import Out
from services.members.client_models import PartnerClient
from services.members.models import LoginSession
from services.members.sign_in import FAILURE_WINDOW_S, FAILURES
from services.members.signing import Signer
from services.members.tokens import device_of, end_sessions

LOOKS: Final = 5
LOOK_AGAIN_S: Final = 0.2
"""The news of a client made or changed just now may still be on its way from referrals."""


class InvalidClient(NotAuthenticated):
    """The client's id or secret is wrong, or the partner is not active any more; ask an admin for a new secret."""

    zh = "client_id 或 client_secret 不正确，或合作已停用；请向管理员索取新的密钥。"

    def __init__(self, *, basic: bool = False) -> None:
        super().__init__(extra={"error": "invalid_client"})
        self.basic = basic

    def headers(self) -> dict[str, str]:
        """The challenge is of the scheme that was tried (RFC 6749 5.2)."""
        return super().headers() | ({"WWW-Authenticate": 'Basic realm="heika"'} if self.basic else {})


class ClientToken(Out):
    """The answer of RFC 6749 4.4.3: an access token, and when it is over, another one is asked for."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind, not a secret
    expires_in: int = TOKEN_SECONDS


def credentials(request: Request, client_id: str | None, client_secret: str | None) -> tuple[str, str] | None:
    """The client's id and secret, from the form or from HTTP Basic (RFC 6749 2.3.1); None when they are not there.

    None, too, for both ways at once, unless the form only repeats the id.
    """
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return (client_id, client_secret) if client_id and client_secret else None
    try:
        name, found, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    name = unquote_plus(name)
    if not found or client_secret or client_id not in (None, name):
        return None
    return name, unquote_plus(secret)


async def log_client_in(
    request: Request, session: AsyncSession, signer: Signer, client_id: str, client_secret: str
) -> ClientToken:
    """A token for a partner's client; InvalidClient for anybody else, and the failure counted."""
    failure = await limit_address(request, "failed", times=FAILURES, seconds=FAILURE_WINDOW_S)
    of_client = await limit(request, "failed:client", client_id, times=FAILURES, seconds=FAILURE_WINDOW_S)
    client = await _recognise(session, client_id, client_secret)
    if client is None:
        raise InvalidClient(basic=request.headers.get("authorization", "").lower().startswith("basic "))
    await failure.give_back()
    await of_client.give_back()
    now = clock.now()
    login = LoginSession(
        subject_id=client.partner_id,
        role="partner",
        device=device_of(request),
        created_at=now,
        last_seen_at=now,
        expires_at=now + timedelta(seconds=TOKEN_SECONDS),
    )
    session.add(login)
    await session.flush()
    return ClientToken(access_token=signer.access_token(client.partner_id, "partner", "", login.id))


async def _recognise(session: AsyncSession, client_id: str, client_secret: str) -> PartnerClient | None:
    offered = hashlib.sha256(client_secret.encode("utf-8", "surrogatepass")).hexdigest()
    # Locked, so that no token is made of a secret while it is being taken away.
    found = select(PartnerClient).where(col(PartnerClient.client_id) == client_id).with_for_update()
    for look in range(LOOKS):
        if look:
            await session.rollback()
            await asyncio.sleep(LOOK_AGAIN_S)
        client = (await session.execute(found.execution_options(populate_existing=True))).scalar_one_or_none()
        if client is not None and client.active and hmac.compare_digest(client.secret_hash, offered):
            return client
    return None


async def on_partner_changed(session: AsyncSession, event: PartnerChanged) -> None:
    """Keep the client; after a change the tokens it had before stop working."""
    values = {
        "client_id": event.client_id,
        "secret_hash": event.secret_hash,
        "active": event.active,
        "version": event.version,
    }
    row = insert(PartnerClient).values(partner_id=event.partner_id, **values)
    newer = col(PartnerClient.version) < event.version
    kept = row.on_conflict_do_update(index_elements=["partner_id"], set_=values, where=newer)
    changed = await session.scalar(kept.returning(col(PartnerClient.version)))
    if changed is not None:
        await end_sessions(session, event.partner_id)
