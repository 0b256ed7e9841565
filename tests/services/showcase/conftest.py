"""The showcase service, with contests, pictures and works at hand."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from contracts.members import MemberRegistered
from kit import clock
from kit.ids import new_id
from kit.text import instant
from services.showcase.app import service
from services.showcase.recount import recount
from tests.harness import Api


class Showcase:
    """What most tests do first."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.client = api.client

    async def contest(self, **changes: Any) -> str:
        """The id of a contest open from now for a week, in which any account may vote."""
        now = clock.now()
        ends_at = changes.pop("ends_at", now + timedelta(days=7))
        body = {
            "title": "春季蛋糕大赛",
            "rules": "亲手做的。",
            "starts_at": now,
            "ends_at": ends_at,
            "accounts_before": ends_at,
        }
        body = {name: instant(value) if hasattr(value, "tzinfo") else value for name, value in (body | changes).items()}
        answer = await self.client.post("/v1/admin/contests", json=body, headers=self.api.admin())
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def upload(self, member: dict[str, str], content: bytes | None = None, **headers: str) -> Any:
        """The answer to a picture brought by a member."""
        files = {"file": ("cake.jpg", picture() if content is None else content, "image/jpeg")}
        return await self.client.post("/v1/uploads", files=files, headers=member | headers)

    async def enter(self, contest: str, member: dict[str, str], **changes: Any) -> Any:
        """The answer to a work entered with one fresh picture."""
        uploaded = (await self.upload(member)).json()["id"]
        body = {"title": "草莓蛋糕", "story": "第一次做。", "upload_ids": [uploaded]} | changes
        return await self.client.post(f"/v1/contests/{contest}/entries", json=body, headers=member)

    async def entry(self, contest: str, member: dict[str, str] | None = None) -> str:
        """The id of a work on show, by somebody else."""
        answer = await self.enter(contest, member or self.api.member())
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def vote(self, entry: str, member: dict[str, str] | None = None) -> Any:
        """The answer to a vote."""
        return await self.client.post(f"/v1/entries/{entry}/votes", headers=member or self.api.member())

    async def registered(self, member_id: UUID, nickname: str = "小麦", **facts: Any) -> None:
        """Hear of a registration."""
        known = {"registered_at": clock.now()} | facts
        await self.api.handle(MemberRegistered(member_id=member_id, nickname=nickname, **known))

    async def recount(self) -> None:
        """Every tally is the number of its vote rows that count, and what was published is what the rows say."""
        for contest in await self.api.sql("SELECT id FROM contest"):
            assert (await recount(self.api.rt, contest.id)).differences == []

    async def settle(self, contest: str) -> Any:
        """The results of a contest that is over."""
        answer = await self.client.post(f"/v1/admin/contests/{contest}/settle", headers=self.api.admin())
        assert answer.status_code == 200, answer.text
        return answer.json()


def picture(size: tuple[int, int] = (40, 30), kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """A small encoded picture."""
    out = io.BytesIO()
    Image.new(mode, size, "tomato").save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def make_picture() -> Callable[..., bytes]:
    """Makes encoded pictures."""
    return picture


@pytest.fixture
async def api(run: Callable[..., AbstractAsyncContextManager[Api]], tmp_path: Path) -> AsyncIterator[Api]:
    """The running service."""
    async with run(service, data=tmp_path) as running:
        yield running


@pytest.fixture
def showcase(api: Api) -> Showcase:
    """The running service with shortcuts."""
    return Showcase(api)


@pytest.fixture
def author() -> UUID:
    """A member who enters works."""
    return new_id()
