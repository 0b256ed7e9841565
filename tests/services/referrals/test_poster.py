"""The poster: a picture whose QR code opens the invitation, with words its font has."""

import inspect
import io
import re
from pathlib import Path

import segno
from PIL import Image, ImageFont

from services.referrals import poster
from tests.harness import Api
from tests.services.referrals.world import member


def modules(picture: Image.Image) -> list[list[bool]]:
    """The dark modules of the one QR code in a picture, found by its white square."""
    white = picture.convert("L").point(lambda level: 255 if level > 253 else 0)
    left, top, right, _ = white.getbbox() or (0, 0, 0, 0)
    square = picture.convert("L").crop((left, top, right, top + right - left))
    count = next(n for n in range(29, 80, 4) if square.width % n == 0)
    step = square.width // count
    return [
        [square.getpixel((x * step + step // 2, y * step + step // 2)) == 0 for x in range(4, count - 4)]
        for y in range(4, count - 4)
    ]


async def test_the_poster_carries_the_members_link(api: Api) -> None:
    headers = api.member(await member(api))
    url = (await api.client.get("/v1/me/invite", headers=headers)).json()["url"]

    answer = await api.client.get("/v1/me/invite/poster.png", headers=headers)

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.headers["Cache-Control"] == "private, no-store"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (750, 1100)
        expected = segno.make(url, error="m", micro=False, boost_error=False).matrix
        assert modules(picture) == [[bool(module) for module in row] for row in expected]
    assert (await api.client.get("/v1/me/invite/poster.png")).status_code == 401


def test_the_font_has_every_character_that_is_drawn() -> None:
    font = ImageFont.truetype(poster.FONT, 40)
    missing = bytes(font.getmask("龘"))
    words = set(
        re.findall(r"[\u4e00-\u9fff0-9A-Z.]", inspect.getsource(poster.draw) + inspect.getsource(poster._offer))
    )

    assert len(words) > 30
    assert [word for word in words if bytes(font.getmask(word)) == missing] == []
    assert (Path(poster.FONT).parent / "OFL.txt").exists()
