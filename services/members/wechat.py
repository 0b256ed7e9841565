"""Signing in by WeChat: a mini program's login code logs a member in, and registers who is new."""

from typing import Annotated
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.app import router
from kit.auth import AccountFrozen
from kit.db import SessionDep
from kit.errors import TooManyRequests, problems
from kit.limits import limit_address
from kit.shapes import CleanStr, In, Out
from kit.vault import Vault, open_vault
from services.members.models import Identity, Member, SandboxWechatUser
from services.members.settings import SettingsDep
from services.members.sign_in import FAILURE_WINDOW_S, FAILURES, Arrival, ArrivalIn, SignedIn, claim, enrol, member_of
from services.members.sign_in import signed_in as log_in
from services.members.signing import SignerDep
from services.members.wechat_server import REFUSALS, WechatUnavailable, WechatUser, wechat_of

api = router(prefix="/v1/auth/wechat", tags=["sign-in"], idempotent=False)
sandbox_api = router(prefix="/v1/sandbox/wechat/users", tags=["sandbox"])

WECHAT = "wechat"
"""The identity by openid: who somebody is to this mini program."""
WECHAT_UNION = "wechat_union"
"""The identity by unionid: who somebody is to all apps of its owner."""

WechatName = Annotated[CleanStr, Field(min_length=1, max_length=128)]


class WechatIn(ArrivalIn):
    """The code of `wx.login`, and, for somebody new, how they came here."""

    js_code: WechatName


class SandboxUser(In):
    """A mini-program user, and the code that logs in as them."""

    openid: WechatName
    unionid: WechatName | None = None
    js_code: WechatName


class SandboxUserOut(Out):
    """The user as written down."""

    openid: str
    unionid: str | None
    js_code: str


def _identity(vault: Vault, kind: str, name: str, member_id: UUID) -> Identity:
    return Identity(
        member_id=member_id,
        kind=kind,
        digest=vault.digest(kind, name),
        masked="",
        sealed=vault.seal(name),
        created_at=clock.now(),
    )


async def recognise(session: AsyncSession, vault: Vault, user: WechatUser, arrival: Arrival) -> tuple[Member, bool]:
    """The member who is this WeChat user, made if there is none, and whether made here; the openid decides."""
    digest = vault.digest(WECHAT, user.openid)
    member = await member_of(session, WECHAT, digest)
    created = False
    if member is None and user.unionid is not None:
        member = await member_of(session, WECHAT_UNION, vault.digest(WECHAT_UNION, user.unionid))
        if member is not None:
            await claim(session, _identity(vault, WECHAT, user.openid, member.id))
    if member is None:
        member, created = await enrol(
            session, WECHAT, digest, arrival, lambda member_id: _identity(vault, WECHAT, user.openid, member_id)
        )
    if user.unionid is not None:
        await claim(session, _identity(vault, WECHAT_UNION, user.unionid, member.id))
    return member, created


@api.post("", responses=problems(*REFUSALS, AccountFrozen, TooManyRequests))
async def log_in_by_wechat(
    body: WechatIn, request: Request, response: Response, session: SessionDep, signer: SignerDep, settings: SettingsDep
) -> SignedIn:
    """Log in with a mini program's login code; a WeChat user nobody knows is registered."""
    response.headers["Cache-Control"] = "no-store"
    failure = await limit_address(request, "failed", times=FAILURES, seconds=FAILURE_WINDOW_S)
    vault = open_vault(settings.key)
    try:
        user = await wechat_of(settings).identify(session, body.js_code)
    except WechatUnavailable:
        await failure.give_back()
        raise
    await failure.give_back()
    member, created = await recognise(session, vault, user, body.by(vault, request))
    return await log_in(session, signer, member, request, created=created)


@sandbox_api.post("", status_code=201)
async def write_wechat_user(body: SandboxUser, session: SessionDep) -> SandboxUserOut:
    """A mini-program user to log in as, under a code that may be used again; in the sandbox only."""
    row = insert(SandboxWechatUser).values(body.model_dump())
    names = {"openid": row.excluded.openid, "unionid": row.excluded.unionid}
    await session.execute(row.on_conflict_do_update(index_elements=["js_code"], set_=names))
    return SandboxUserOut.model_validate(body)
