"""Binding a phone: a WeChat account gets the phone its owner proves to have; a phone with an account makes the two one."""

from typing import Annotated
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import router
from kit.auth import AccountFrozen, MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, NotAuthenticated, TooManyRequests, problems
from kit.limits import limit_address
from kit.shapes import In
from kit.vault import Vault, open_vault
from services.members.merging import merge
from services.members.models import Identity, Member
from services.members.otp import CodeExpired, InvalidCode, use_code
from services.members.phones import Phone
from services.members.profile import lock_member
from services.members.settings import SettingsDep
from services.members.sign_in import FAILURE_WINDOW_S, FAILURES, SignedIn, claim, member_of, phone_identity
from services.members.sign_in import signed_in as log_in
from services.members.signing import SignerDep

api = router(prefix="/v1/me/phone", tags=["sign-in"], idempotent=False)

ROUNDS = 5


class PhoneAlreadyBound(Conflict):
    """Your account has another phone already; log in with that one."""

    zh = "你的账号已经绑定了另一个手机号，请用那个手机号登录。"


class WechatAlreadyBound(Conflict):
    """The account of this phone belongs to another WeChat; log in with that WeChat, or choose another phone."""

    zh = "这个手机号的账号已绑定另一个微信，请用那个微信登录，或换一个手机号。"


class BindingBusy(Conflict):
    """This phone's account is changing at this moment; try again."""

    zh = "这个手机号的账号正在变更，请再试一次。"


class PhoneIn(In):
    """The phone, and the code that `POST /v1/auth/otp` sent to it."""

    phone: Phone
    code: Annotated[str, Field(max_length=32)]


REFUSALS = (InvalidCode, CodeExpired, PhoneAlreadyBound, WechatAlreadyBound, BindingBusy, AccountFrozen)


@api.post("", responses=problems(*REFUSALS, TooManyRequests))
async def bind_phone(
    body: PhoneIn,
    caller: MemberDep,
    request: Request,
    response: Response,
    session: SessionDep,
    signer: SignerDep,
    settings: SettingsDep,
) -> SignedIn:
    """Bind a phone to the caller; when the phone has an account, the caller's becomes part of it. Use the new tokens."""
    response.headers["Cache-Control"] = "no-store"
    failure = await limit_address(request, "failed", times=FAILURES, seconds=FAILURE_WINDOW_S)
    vault = open_vault(settings.key)
    await use_code(session, vault, vault.digest("phone", body.phone), body.code)
    await failure.give_back()
    member = await _bind(session, vault, caller.id, body.phone)
    return await log_in(session, signer, member, request, created=False)


async def _bind(session: AsyncSession, vault: Vault, caller_id: UUID, phone: str) -> Member:
    digest = vault.digest("phone", phone)
    for _ in range(ROUNDS):
        holder = await member_of(session, "phone", digest)
        # In the order of their ids, as every transaction that holds two members.
        ids = sorted({caller_id, holder.id if holder else caller_id})
        locked = {member_id: await lock_member(session, member_id) for member_id in ids}
        caller = locked[caller_id]
        if caller is None:
            raise NotAuthenticated
        if holder is None:
            if await _has(session, caller_id, "phone"):
                raise PhoneAlreadyBound
            if await claim(session, phone_identity(vault, caller_id, phone)):
                return caller
            continue
        held = locked[holder.id]
        again = await member_of(session, "phone", digest)
        if held is None or again is None or again.id != holder.id:
            continue
        if holder.id == caller_id:
            return caller
        await _judge(session, caller_id, held)
        await merge(session, held, caller)
        return held
    raise BindingBusy


async def _judge(session: AsyncSession, caller_id: UUID, holder: Member) -> None:
    if await _has(session, caller_id, "phone"):
        raise PhoneAlreadyBound
    if await _has(session, caller_id, "wechat") and await _has(session, holder.id, "wechat"):
        raise WechatAlreadyBound
    if holder.frozen:
        raise AccountFrozen


async def _has(session: AsyncSession, member_id: UUID, kind: str) -> bool:
    mine = select(col(Identity.id)).where(col(Identity.member_id) == member_id, col(Identity.kind) == kind)
    return (await session.execute(mine)).one_or_none() is not None
