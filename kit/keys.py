"""The public keys that sign access tokens, and the tokens that were checked against them a moment ago."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from kit.errors import Unavailable

if TYPE_CHECKING:
    from kit.auth import Caller

log = structlog.get_logger(__name__)

KEYS_MAX_AGE_S = 300.0
KEYS_MIN_AGE_S = 2.0


class KeysUnavailable(Unavailable):
    """Logins cannot be checked at this moment; your token is not lost. Try again after Retry-After."""

    zh = "暂时无法核验登录状态，令牌并未失效，请按 Retry-After 稍后再试。"


class Keys:
    """The public keys that sign tokens: published in this process by members, or fetched from it."""

    def __init__(self) -> None:
        self.fetch: Callable[[], Awaitable[dict[str, Any]]] | None = None
        self._set: KeySet | None = None
        self._fetched_at = -KEYS_MAX_AGE_S
        self._published = False
        self._fetching = asyncio.Lock()

    def publish(self, jwks: dict[str, Any]) -> None:
        """Take these keys (a JWK Set, RFC 7517) as the ones in force."""
        self._set = KeySet.import_key_set(cast("Any", jwks))
        self._published = True
        verified.clear()

    def fetch_from(self, url: str) -> None:
        """Fetch the keys from this address when they are needed and none were published here."""

        async def fetch() -> dict[str, Any]:
            async with httpx.AsyncClient(timeout=2.0) as client:
                return cast("dict[str, Any]", (await client.get(url)).raise_for_status().json())

        self.fetch = fetch

    async def current(self, kid: str | None) -> KeySet:
        """The key set, fetched anew when old or when it lacks `kid`; KeysUnavailable when none was ever had."""
        # Members in this very process publishes each change itself.
        if self.fetch is not None and not self._published and self._is_due(kid):
            async with self._fetching:
                if self._is_due(kid):
                    await self._renew(self.fetch)
        if self._set is None:
            raise KeysUnavailable
        return self._set

    def _is_due(self, kid: str | None) -> bool:
        age = time.monotonic() - self._fetched_at
        known = self._set is not None and any(key.kid == kid for key in self._set.keys)
        return age > KEYS_MAX_AGE_S or (not known and age > KEYS_MIN_AGE_S)

    async def _renew(self, fetch: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        try:
            self._set = KeySet.import_key_set(cast("Any", await fetch()))
        except (httpx.HTTPError, ValueError, KeyError, JoseError) as failure:
            log.warning("keys not fetched", error=type(failure).__name__)
        # Also after a failure: whoever comes next must not wait for the same time-out again.
        self._fetched_at = time.monotonic()


keys = Keys()
verified: "OrderedDict[str, Caller]" = OrderedDict()
"""Callers by the token that named them; forgotten when other keys are in force."""
