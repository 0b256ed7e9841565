"""Signing keys: Ed25519 pairs that take turns, published as a JWK Set before they sign, private halves sealed at rest."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, cast
from uuid import UUID

import orjson
from fastapi import Depends, Request, Response
from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import auth, clock
from kit.app import Runtime, RuntimeDep, router
from kit.db import SessionDep
from kit.http import cacheable
from kit.ids import new_id
from kit.shapes import Out
from kit.vault import Vault, open_vault
from services.members.models import SigningKey

api = router(prefix="/.well-known", tags=["sign-in"])

RETIRED_FOR = timedelta(seconds=auth.LONGEST_TOKEN_SECONDS) + timedelta(minutes=10)
"""How long a retired key stays published: past the last token it signed, and the caches of those who verify."""
IN_FORCE_FOR = timedelta(days=30)
ALWAYS = 2
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('members signing key', 0))")


class JwksOut(Out):
    """A JWK Set (RFC 7517) of the keys that verify access tokens."""

    keys: list[dict[str, Any]]


@dataclass
class Signer:
    """The key this process signs with."""

    key: OKPKey

    def access_token(
        self,
        subject: UUID,
        role: str,
        scope: str,
        session_id: UUID,
        *,
        actor: UUID | None = None,
        seconds: int = auth.TOKEN_SECONDS,
    ) -> str:
        """A signed access token (RFC 7519) with the claims every process reads; `actor` looks as `subject` (RFC 8693)."""
        issued_at = int(clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": auth.ISSUER,
            "aud": auth.AUDIENCE,
            "sub": str(subject),
            "role": role,
            "scope": scope,
            "sid": str(session_id),
            "iat": issued_at,
            "exp": issued_at + seconds,
            "jti": str(new_id()),
        }
        if actor is not None:
            claims["act"] = {"sub": str(actor)}
        return jwt.encode({"alg": auth.ALGORITHM, "kid": self.key.kid}, claims, self.key, algorithms=[auth.ALGORITHM])


async def ensure_key(session: AsyncSession, vault: Vault) -> Signer:
    """The signer with the key in force; makes the keys there should be, once among processes that ask together.

    Two keys are always published: the one in force and the next, which takes its turn when everybody has long read it.
    """
    await session.execute(_LOCK)
    keys = await _living(session)
    # The next key was made when the one in force began to sign.
    if len(keys) > 1 and keys[1].created_at <= clock.now() - IN_FORCE_FOR:
        keys.pop(0).retired_at = clock.now()
    while len(keys) < ALWAYS:
        keys.append(await _make(session, vault))
    return Signer(OKPKey.import_key(orjson.loads(vault.unseal(keys[0].sealed))))


async def rotate_key(session: AsyncSession, vault: Vault) -> None:
    """Retire the key in force now; it stays published until the tokens it signed are over, and the next one signs."""
    await session.execute(_LOCK)
    keys = await _living(session)
    if keys:
        keys[0].retired_at = clock.now()
        await session.flush()
    await ensure_key(session, vault)


async def rotate_now(rt: Runtime) -> None:
    """Rotate, and take it up in this process; the others do within a minute."""
    async with rt.db.session() as session, session.begin():
        await rotate_key(session, open_vault(rt.settings.key))
    await refresh_keys(rt)


async def _living(session: AsyncSession) -> list[SigningKey]:
    """The keys that have not retired, the one in force first."""
    statement = select(SigningKey).where(col(SigningKey.retired_at).is_(None))
    ordered = statement.order_by(col(SigningKey.created_at), col(SigningKey.kid))
    return list((await session.execute(ordered)).scalars())


async def _make(session: AsyncSession, vault: Vault) -> SigningKey:
    pair = OKPKey.generate_key("Ed25519", {"use": "sig", "alg": auth.ALGORITHM}, auto_kid=True)
    key = SigningKey(
        kid=str(pair.kid),
        public=cast("dict[str, Any]", pair.as_dict(private=False)),
        sealed=vault.seal(orjson.dumps(pair.as_dict(private=True)).decode()),
        created_at=clock.now(),
    )
    session.add(key)
    await session.flush()
    return key


async def published_keys(session: AsyncSession) -> dict[str, Any]:
    """The JWK Set in force."""
    retired_at = col(SigningKey.retired_at)
    statement = (
        select(col(SigningKey.public))
        .where(retired_at.is_(None) | (retired_at > clock.now() - RETIRED_FOR))
        .order_by(col(SigningKey.created_at), col(SigningKey.kid))
    )
    return {"keys": list((await session.execute(statement)).scalars())}


async def refresh_keys(rt: Runtime) -> int:
    """Take up in this process what the key table says now; counts as nothing done."""
    async with rt.db.session() as session, session.begin():
        rt.state["signer"] = await ensure_key(session, open_vault(rt.settings.key))
        jwks = await published_keys(session)
    if jwks != rt.state.get("jwks"):
        rt.state["jwks"] = jwks
        auth.keys.publish(jwks)
    return 0


async def _signer(rt: RuntimeDep) -> Signer:
    return cast("Signer", rt.state["signer"])


SignerDep = Annotated[Signer, Depends(_signer)]


@api.get("/jwks.json", response_model=JwksOut)
async def read_jwks(session: SessionDep, request: Request) -> Response:
    """The public keys that verify access tokens."""
    return cacheable(request, await published_keys(session), max_age_s=300)
