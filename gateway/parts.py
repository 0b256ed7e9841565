"""Parts of a composite answer: what services are asked at the same time, each with its own patience."""

import asyncio
from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp

from gateway.calls import NoAnswer, ask
from gateway.inbound import Inbound
from gateway.public_parts import PART_S, Missing
from kit.errors import NotAuthenticated


class Parts:
    """The questions of one composite answer, and which services did not answer them."""

    def __init__(self, upstreams: Mapping[str, ASGIApp], inbound: Inbound) -> None:
        self._upstreams = upstreams
        self._inbound = inbound
        self._until = asyncio.get_running_loop().time() + PART_S
        self.degraded: set[str] = set()

    async def one(self, service: str, target: str) -> Any:
        """A service's answer to GET; None when it has nothing there, or did not answer, which `degraded` then says."""
        left = max(0.05, self._until - asyncio.get_running_loop().time())
        try:
            answer = await ask(self._upstreams[service], "GET", target, seconds=left, inbound=self._inbound)
            if answer.status == HTTPStatus.OK:
                return answer.json()
        except (NoAnswer, ValueError):
            self.degraded.add(service)
            return None
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise NotAuthenticated
        if answer.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
            self.degraded.add(service)
        return None

    async def items(self, service: str, target: str) -> list[Any]:
        """The items of a list; empty when there is none."""
        found = await self.one(service, target)
        items: list[Any] = found.get("items", []) if isinstance(found, dict) else []
        return items

    async def public(self, service: str, part: Awaitable[Any], *, empty: Any) -> Any:
        """A part that everybody sees alike; `empty` without it."""
        try:
            return await part
        except Missing:
            self.degraded.add(service)
            return empty

    async def together(self, **parts: Awaitable[Any]) -> dict[str, Any]:
        """All parts by name, and `degraded`: the services of which something is missing."""
        values = await asyncio.gather(*parts.values())
        return dict(zip(parts, values, strict=True)) | {"degraded": sorted(self.degraded)}
