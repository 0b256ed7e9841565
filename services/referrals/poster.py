"""The invitation poster: a picture with the member's code and link, to be saved and shown."""

import asyncio
from typing import Final
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import TooManyRequests, problems
from kit.limits import limit
from kit.poster import ACCENT, Poster
from services.referrals.invites import invite_code_of
from services.referrals.models import MemberCard
from services.referrals.rules import rule_at
from services.referrals.share_switches import ShareChannelQuery, SharingOff, require_sharing

routes = router(prefix="/v1/me/invite", tags=["invitations"])

SIZE: Final = (750, 1100)
QR_BOX: Final = 460
PER_MINUTE: Final = 20
LONGEST_NAME: Final = 16


@routes.get(
    "/poster.png",
    response_class=Response,
    responses={
        **problems(TooManyRequests, SharingOff),
        200: {"content": {"image/png": {}}, "description": "the poster"},
    },
)
async def read_own_poster(
    request: Request, caller: MemberDep, session: SessionDep, rt: RuntimeDep, channel: ShareChannelQuery = None
) -> Response:
    """The caller's invitation as a picture with a QR code that opens their link."""
    await require_sharing(session, channel)
    await limit(request, "poster", str(caller.id), times=PER_MINUTE, seconds=60)
    code = await invite_code_of(session, caller.id)
    content = await asyncio.to_thread(
        draw, rt.settings.invite_link(code), code, await _offer(session), await _name(session, caller.id)
    )
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, no-store"})


async def _offer(session: AsyncSession) -> str:
    amount = (await rule_at(session, clock.now())).newcomer_amount
    return f"新人立减 {amount / 100:g} 元" if amount else ""


async def _name(session: AsyncSession, member_id: UUID) -> str:
    card = await session.get(MemberCard, member_id)
    return card.nickname if card else ""


def draw(url: str, code: str, offer: str, name: str = "") -> bytes:
    """The poster as PNG; `offer` and the inviter's name may be empty."""
    poster, middle = Poster(*SIZE), SIZE[0] // 2
    poster.words((middle, 110), "一起来学烘焙", 76)
    if name:
        poster.words((middle, 200), name[:LONGEST_NAME], 40, ACCENT)
    poster.words((middle, 255 if name else 225), "邀请你加入烘焙课堂", 36)
    if offer:
        poster.words((middle, 330), offer, 48, ACCENT)
    poster.code((middle, 400 + QR_BOX // 2), url, QR_BOX)
    poster.words((middle, 905), "长按识别二维码", 34)
    poster.words((middle, 985), f"邀请码  {code}", 48, ACCENT)
    return poster.png()
