"""WeChat's server: exchanges a mini program's login code for who logged in; in the sandbox a notebook answers for it."""

from typing import Annotated, NamedTuple, Protocol

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.errors import Forbidden, NotAuthenticated, TooManyRequests, Unavailable
from services.members.models import SandboxWechatUser
from services.members.settings import Settings

log = structlog.get_logger(__name__)

TIMEOUT_S = 5.0
RETRY_AFTER_S = 5.0


class InvalidJsCode(NotAuthenticated):
    """This WeChat login code is wrong, was used, or is older than five minutes; get a new one from WeChat."""

    zh = "微信登录凭证不正确、已用过或已过期，请在小程序里重新登录。"
    code = "invalid_code"
    action = ""


class WechatUserBlocked(Forbidden):
    """WeChat holds this account to be a risk and lets nobody log in with it; log in by phone."""

    zh = "微信判定该账号存在风险，暂不能用它登录，请改用手机号登录。"


class WechatBusy(TooManyRequests):
    """WeChat takes no more logins of this person for now; try again in a minute."""

    zh = "微信登录过于频繁，请一分钟后再试。"


class WechatUnavailable(Unavailable):
    """WeChat does not answer just now; try again in a few seconds, or log in by phone."""

    zh = "微信暂时没有响应，请过几秒再试，或改用手机号登录。"


REFUSALS = (InvalidJsCode, WechatUserBlocked, WechatBusy, WechatUnavailable)

# WeChat's own table of errcodes for code2session; every other one is ours to repair, not the caller's.
_INVALID_CODE = frozenset({40029, 40163, 41008})
_BLOCKED = 40226
_TOO_OFTEN = 45011

Name = Annotated[str, Field(min_length=1, max_length=128)]


class WechatUser(NamedTuple):
    """Somebody as WeChat names them: to this mini program, and over all apps of its owner."""

    openid: str
    unionid: str | None


class WechatServer(Protocol):
    """Says who a login code is; one of `REFUSALS` when it is nobody or cannot be known."""

    async def identify(self, session: AsyncSession, js_code: str) -> WechatUser:
        """The person behind the code."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    errcode: int = 0
    openid: Name | None = None
    unionid: Name | None = None


class SandboxNotebook:
    """Answers with the users that `POST /v1/sandbox/wechat/users` wrote down."""

    async def identify(self, session: AsyncSession, js_code: str) -> WechatUser:
        """Look the code up."""
        held = select(SandboxWechatUser).where(col(SandboxWechatUser.js_code) == js_code)
        user = (await session.execute(held)).scalar_one_or_none()
        if user is None:
            raise InvalidJsCode
        return WechatUser(user.openid, user.unionid)


class CodeToSession:
    """Asks `GET /sns/jscode2session`; the session key it answers is dropped, nothing here decrypts with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def identify(self, session: AsyncSession, js_code: str) -> WechatUser:  # noqa: ARG002 - the notebook's need
        """Ask; an answer that cannot be read counts as none."""
        settings = self._settings
        if not (settings.wechat_app_id and settings.wechat_app_secret):
            log.error("no mini program is configured", setting="MEMBERS_WECHAT_APP_ID")
            raise WechatUnavailable(retry_after=RETRY_AFTER_S)
        query = {
            "appid": settings.wechat_app_id,
            "secret": settings.wechat_app_secret,
            "js_code": js_code,
            "grant_type": "authorization_code",
        }
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S, base_url=settings.wechat_url) as client:
                answer = await client.get("/sns/jscode2session", params=query)
                answer.raise_for_status()
            # WeChat labels its JSON text/plain; the body is what counts.
            said = _Answer.model_validate_json(answer.content)
        except (httpx.HTTPError, httpx.InvalidURL, ValidationError) as failure:
            log.warning("WeChat not asked", error=type(failure).__name__)
            raise WechatUnavailable(retry_after=RETRY_AFTER_S) from failure
        return _read(said)


def _read(said: _Answer) -> WechatUser:
    if said.errcode in _INVALID_CODE:
        raise InvalidJsCode
    if said.errcode == _BLOCKED:
        raise WechatUserBlocked
    if said.errcode == _TOO_OFTEN:
        raise WechatBusy(retry_after=60)
    if said.errcode or said.openid is None:
        log.error("WeChat refused", errcode=said.errcode)
        raise WechatUnavailable(retry_after=RETRY_AFTER_S)
    return WechatUser(said.openid, said.unionid)


def wechat_of(settings: Settings) -> WechatServer:
    """Whom this process asks: WeChat when a mini program is configured, else the sandbox's notebook."""
    if settings.sandbox and not settings.wechat_app_id:
        return SandboxNotebook()
    return CodeToSession(settings)
