"""The invitation poster: a picture with the member's code and link, to be saved and shown."""

import asyncio
import io
from functools import lru_cache
from pathlib import Path
from typing import Final

import segno
from fastapi import Request, Response
from PIL import Image, ImageDraw, ImageFont
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import TooManyRequests, problems
from kit.limits import limit
from services.referrals.invites import invite_code_of
from services.referrals.rules import rule_at

routes = router(prefix="/v1/me/invite", tags=["invitations"])

FONT: Final = Path(__file__).parent / "fonts" / "NotoSansSC-poster.otf"
"""It holds only the characters drawn here; other words need a new cut of the font."""

SIZE: Final = (750, 1100)
QR_BOX: Final = 460
PAPER, INK, ACCENT = "#fff7ec", "#3b2417", "#c8642b"
PER_MINUTE: Final = 20


@routes.get(
    "/poster.png",
    response_class=Response,
    responses={**problems(TooManyRequests), 200: {"content": {"image/png": {}}, "description": "the poster"}},
)
async def my_poster(request: Request, caller: MemberDep, session: SessionDep, rt: RuntimeDep) -> Response:
    """The caller's invitation as a picture with a QR code that opens their link."""
    await limit(request, "poster", str(caller.id), times=PER_MINUTE, seconds=60)
    code = await invite_code_of(session, caller.id)
    content = await asyncio.to_thread(draw, rt.settings.invite_link(code), code, await _offer(session))
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, no-store"})


async def _offer(session: AsyncSession) -> str:
    amount = (await rule_at(session, clock.now())).newcomer_amount
    return f"新人立减 {amount / 100:g} 元" if amount else ""


def draw(url: str, code: str, offer: str) -> bytes:
    """The poster as PNG; `offer` may be empty."""
    poster = Image.new("RGB", SIZE, PAPER)
    pen = ImageDraw.Draw(poster)
    pen.rectangle((0, 0, SIZE[0], 24), fill=ACCENT)
    _centred(pen, 110, "一起来学烘焙", 76, INK)
    _centred(pen, 225, "邀请你加入烘焙课堂", 40, INK)
    if offer:
        _centred(pen, 305, offer, 48, ACCENT)
    square = _qr(url)
    poster.paste(square, ((SIZE[0] - square.width) // 2, 400))
    _centred(pen, 905, "长按识别二维码", 34, INK)
    _centred(pen, 985, f"邀请码  {code}", 48, ACCENT)
    out = io.BytesIO()
    poster.quantize(64).save(out, "PNG")
    return out.getvalue()


def _qr(url: str) -> Image.Image:
    # Level M with its quiet zone survives being photographed from a screen; modules of whole pixels stay sharp.
    code = segno.make(url, error="m", micro=False, boost_error=False)
    drawn = io.BytesIO()
    code.save(drawn, kind="png", scale=max(1, QR_BOX // code.symbol_size(border=4)[0]), border=4)
    with Image.open(drawn) as picture:
        return picture.convert("RGB")


def _centred(pen: ImageDraw.ImageDraw, middle: int, words: str, size: int, colour: str) -> None:
    pen.text((SIZE[0] // 2, middle), words, font=_font(size), fill=colour, anchor="mm")


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, size)
