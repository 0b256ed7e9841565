"""The poster: a picture whose QR code opens the invitation."""

import io

import segno
from PIL import Image

from tests.harness import Api
from tests.kit.test_poster import modules
from tests.services.referrals.world import member


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
