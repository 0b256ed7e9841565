"""Problems (RFC 9457): one exception class is the answer, its message in two languages, and its OpenAPI schema."""

import inspect
import re
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Request
from starlette.responses import Response

from kit.text import dump_json, scrub
from kit.wording import in_language, language_of

TITLES = {
    400: ("请求无法理解", "Bad request"),
    401: ("需要登录", "Not authenticated"),
    403: ("没有权限", "Forbidden"),
    404: ("没有找到", "Not found"),
    405: ("方法不支持", "Method not allowed"),
    408: ("请求超时", "Request timeout"),
    409: ("与当前状态冲突", "Conflict"),
    410: ("已经不在了", "Gone"),
    412: ("版本已过期", "Precondition failed"),
    413: ("内容太大", "Content too large"),
    415: ("类型不支持", "Unsupported media type"),
    416: ("范围无效", "Range not satisfiable"),
    422: ("内容不符合要求", "Unprocessable content"),
    429: ("请求太频繁", "Too many requests"),
    431: ("请求头太大", "Request header fields too large"),
    500: ("服务器出错", "Internal server error"),
    502: ("上游应答有误", "Bad gateway"),
    503: ("服务暂时不可用", "Service unavailable"),
    504: ("上游超时", "Gateway timeout"),
}


class Problem(Exception):
    """Something is wrong with this request."""

    status: ClassVar[int] = 400
    zh: ClassVar[str] = "这个请求有问题。"
    code: ClassVar[str] = "problem"
    action: ClassVar[str | None] = None
    loc: ClassVar[tuple[str, ...]] = ("body",)
    """What of the request breaks a rule, for a 422; the whole body where fields break it together."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(
        self, *, retry_after: float | None = None, extra: dict[str, Any] | None = None, **words: object
    ) -> None:
        super().__init__(self.code)
        self.retry_after = retry_after
        self.extra = extra or {}
        self.words = words

    def detail(self, language: str) -> str:
        """The whole sentence in `zh` or `en`, with this problem's words filled in."""
        sentence = self.zh if language == "zh" else inspect.cleandoc(self.__doc__ or "")
        return sentence.format(**self.words) if self.words else sentence

    def headers(self) -> dict[str, str]:
        """Extra response headers."""
        # It is said in the caller's language, of this moment: HTTP lets a 404 be kept that says nothing (RFC 9111 4.2.2).
        headers = {"Cache-Control": "private, no-store"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after + 0.499)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self, language: str, request_id: str | None) -> dict[str, Any]:
        """The problem+json members."""
        zh, en = TITLES.get(self.status, TITLES[500])
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": zh if language == "zh" else en,
            "status": self.status,
            "detail": self.detail(language),
            "code": self.code,
            "request_id": request_id,
        }
        if self.action:
            body["action"] = self.action
        body |= self.extra
        if self.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            body.setdefault("errors", [{"loc": list(self.loc), "msg": body["detail"], "code": self.code}])
        if "errors" in body:
            body["errors"] = in_language(body["errors"], language)
        return body

    def response(self, language: str, request_id: str | None) -> Response:
        """The answer, ready to send."""
        body = self.body(language, request_id)
        try:
            content = dump_json(body)
        except TypeError:
            # Somebody's text is in it, which no UTF-8 can carry; to look for that in every answer takes as long as writing it.
            content = dump_json(scrub(body))
        return Response(content, self.status, self.headers(), media_type="application/problem+json")


class BadRequest(Problem):
    """The request cannot be understood; check its form and send it again."""

    status = 400
    zh = "请求无法理解，请检查格式后重试。"


class NotAuthenticated(Problem):
    """Log in first: this call needs a valid access token."""

    status = 401
    zh = "请先登录：这个接口需要有效的访问令牌。"
    action = "log_in"


class Forbidden(Problem):
    """You are logged in, but this is not yours to do; ask an administrator for the right."""

    status = 403
    zh = "当前账号没有这项权限，请联系管理员开通。"


class NotFound(Problem):
    """There is nothing here under this address."""

    status = 404
    zh = "这里没有你要找的内容。"


class MethodNotAllowed(Problem):
    """This address does not take this method."""

    status = 405
    zh = "这个地址不支持这种请求方法。"


class Conflict(Problem):
    """The current state does not allow this; reload and try again."""

    status = 409
    zh = "当前状态不允许这样做，请刷新后再试。"


class Gone(Problem):
    """This was here once and is no longer."""

    status = 410
    zh = "内容已经不在了。"


class StaleVersion(Problem):
    """Somebody changed this in the meantime; load it again and repeat your change on the new version."""

    status = 412
    zh = "内容已被他人修改，请重新读取后再改。"


class PayloadTooLarge(Problem):
    """This is larger than this address takes; send less."""

    status = 413
    zh = "内容超过了大小限制，请缩小后再发送。"


class UnsupportedMedia(Problem):
    """This type of content is not taken here."""

    status = 415
    zh = "不支持这种内容类型。"


class Unprocessable(Problem):
    """The content does not meet the rules of this call; see what is named and correct it."""

    status = 422
    zh = "内容不符合要求，请按提示修改。"


class ValidationFailed(Unprocessable):
    """Some fields are not right; `errors` names each of them."""

    zh = "有字段不正确，`errors` 里列出了每一处。"
    code = "validation_failed"


class TooManyRequests(Problem):
    """Too many requests; wait as long as Retry-After says, then try again."""

    status = 429
    zh = "请求太频繁，请按 Retry-After 的秒数等待后再试。"
    code = "rate_limited"
    action = "retry_after"

    def __init__(self, *, policy: tuple[str, int, float] | None = None, **words: Any) -> None:
        """`policy` is the limit that is used up: its name, how many, in how many seconds."""
        super().__init__(**words)
        self.policy = policy

    def headers(self) -> dict[str, str]:
        """Which limit it was, too (the IETF's RateLimit header fields)."""
        headers = super().headers()
        if self.policy is not None and self.retry_after is not None:
            name, times, seconds = self.policy
            headers["RateLimit-Policy"] = f'"{name}";q={times};w={round(seconds)}'
            headers["RateLimit"] = f'"{name}";r=0;t={headers["Retry-After"]}'
        return headers


class Internal(Problem):
    """Something broke on our side; it has been recorded. Try again, and quote request_id if it stays."""

    status = 500
    zh = "服务器出了问题，已经记录。请重试；若仍不行，请把 request_id 告诉我们。"
    code = "internal"


class Unavailable(Problem):
    """This part is not available for a moment; try again after Retry-After."""

    status = 503
    zh = "服务暂时不可用，请按 Retry-After 稍后再试。"
    action = "retry_after"

    def __init__(self, *, retry_after: float | None = 2, extra: dict[str, Any] | None = None, **words: object) -> None:
        super().__init__(retry_after=retry_after, extra=extra, **words)


class DatabaseUnavailable(Unavailable):
    """The database does not answer at the moment; nothing was changed. Try again after Retry-After."""

    zh = "数据库暂时没有应答，没有任何改动。请按 Retry-After 稍后再试。"


class Collision(Unavailable):
    """Somebody changed the same things at the same moment, and this was not done; nothing was changed. Try again in a second."""

    zh = "同一时间有人在修改同样的内容，这次没有完成，也没有任何改动，请过一秒再试。"


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": ["string", "null"]},
        "action": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "code"],
                "properties": {
                    "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                    "msg": {"type": "string"},
                    "code": {"type": "string"},
                },
            },
        },
    },
}


def problems(*classes: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer these problems, each documented with its code and both messages."""
    responses: dict[int | str, dict[str, Any]] = {}
    for cls in classes:
        english = inspect.cleandoc(cls.__doc__ or "")
        answer = responses.setdefault(
            cls.status,
            {
                "description": "",
                "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        answer["description"] = f"{answer['description']}\n\n`{cls.code}`: {english} / {cls.zh}".strip()
        content = answer["content"]["application/problem+json"]
        example = {"type": f"/problems/{cls.code}", "title": TITLES[cls.status][0], "status": cls.status}
        example |= {"detail": cls.zh, "code": cls.code, "request_id": "01990d3f-6c9e-7cc5-8f0e-1f6a3e1b2c3d"}
        content["examples"][cls.code] = {"value": example | ({"action": cls.action} if cls.action else {})}
    return responses


def request_language(request: Request) -> str:
    """The language of this request's answers."""
    return language_of(request.headers.get("accept-language", ""))
