"""Who is calling: EdDSA access tokens checked against the published keys, with revocations heard within seconds."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import structlog
from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jws import extract_compact

from kit import clock
from kit.errors import Forbidden, NotAuthenticated
from kit.keys import Keys, keys, verified
from kit.revocations import revocations

__all__ = ["Keys", "keys", "verified"]

# RFC 9864 renames the algorithm, but "EdDSA" is what the API promises and every client library reads.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)

log = structlog.get_logger(__name__)

ALGORITHM = "EdDSA"
ISSUER = "heika"
AUDIENCE = "heika"
TOKEN_SECONDS = 900
IMPERSONATION_SECONDS = 1800
LONGEST_TOKEN_SECONDS = max(TOKEN_SECONDS, IMPERSONATION_SECONDS)
READ_ONLY = "read-only"
"""The scope of a member's token that an admin looks with."""
MAX_TOKEN_LENGTH = 4096
CACHED_TOKENS = 20_000

Role = Literal["member", "admin", "partner"]


class AccountFrozen(Forbidden):
    """This account is frozen; write to the community's support to have it opened again."""

    zh = "账号已被冻结，请联系社区客服处理。"


class ReadOnlySession(Forbidden):
    """This session only looks: somebody of the community's support is here as this member, and can change nothing."""

    zh = "当前是客服只读查看会话，不能做任何更改。"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever made the request; `actor_id` is the admin who looks as this member (RFC 8693 4.1), and only looks."""

    id: UUID
    role: Role
    scopes: frozenset[str]
    session_id: UUID | None
    token_id: str
    expires_at: int
    actor_id: UUID | None = None
    # Read at each request, and text of a UUID takes longer than everything else that is done with a known token.
    name: str = field(init=False, repr=False, compare=False)
    marks: frozenset[str] = field(init=False, repr=False, compare=False)
    only_looks: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Say once what revocations and limits call this caller."""
        object.__setattr__(self, "name", str(self.id))
        object.__setattr__(self, "marks", frozenset((f"session:{self.session_id}", f"member:{self.id}")))
        object.__setattr__(self, "only_looks", self.actor_id is not None or READ_ONLY in self.scopes)

    def require_may(self, method: str) -> None:
        """Raise ReadOnlySession for a request that is not only reading, by a caller who only looks."""
        if self.only_looks and method not in ("GET", "HEAD", "OPTIONS"):
            raise ReadOnlySession


async def verify(token: str) -> Caller:
    """The caller an access token names; NotAuthenticated for anything not exactly right, AccountFrozen for a frozen one."""
    while (caller := recall(token)) is None:
        verified[token] = await _decode(token)
        if len(verified) > CACHED_TOKENS:
            verified.popitem(last=False)
    return caller


def recall(token: str) -> Caller | None:
    """As `verify`, of a token that this process has checked a moment ago; None for one that it has to check first."""
    caller = verified.get(token)
    if caller is None:
        return None
    if caller.expires_at <= clock.timestamp() or not caller.marks.isdisjoint(revocations.gone):
        raise NotAuthenticated
    if caller.name in revocations.frozen:
        raise AccountFrozen
    return caller


async def _decode(token: str) -> Caller:
    if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        raise NotAuthenticated
    try:
        key_set = await keys.current(extract_compact(token.encode()).headers().get("kid"))
        decoded = jwt.decode(token, key_set, algorithms=[ALGORITHM])
        claims = decoded.claims
        if claims["iss"] != ISSUER or claims["aud"] != AUDIENCE or claims["role"] not in ("member", "admin", "partner"):
            raise NotAuthenticated
        return Caller(
            id=UUID(claims["sub"]),
            role=claims["role"],
            scopes=frozenset(str(claims.get("scope", "")).split()),
            session_id=UUID(claims["sid"]) if claims.get("sid") else None,
            token_id=str(claims.get("jti", "")),
            expires_at=int(claims["exp"]),
            actor_id=UUID(claims["act"]["sub"]) if claims.get("act") else None,
        )
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        raise NotAuthenticated from failure


def bearer_of(request: Request) -> str | None:
    """The token of `Authorization: Bearer` (RFC 6750 2.1), or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def caller_of(request: Request) -> Caller | None:
    """Whoever is calling, None for a caller without a token; a bad token is NotAuthenticated.

    A write by one who only looks is ReadOnlySession.
    """
    if "heika.caller" in request.scope:
        return cast("Caller | None", request.scope["heika.caller"])
    token = bearer_of(request)
    caller = await verify(token) if token is not None else None
    if caller is not None:
        caller.require_may(request.method)
    request.scope["heika.caller"] = caller
    return caller


SCOPES = {
    "plans:read": "看价目 / read plans",
    "plans:write": "改价目 / edit plans",
    "orders:read": "看订单与账本 / read orders and the ledger",
    "orders:write": "退款与对账 / refund and reconcile",
    "members:read": "看会员 / read members",
    "members:write": "改会员 / edit members",
    "courses:read": "看课程 / read courses",
    "courses:write": "改课程与直播 / edit courses and live lessons",
    "coupons:read": "看优惠券与渠道 / read coupons and channels",
    "coupons:write": "发优惠券、改渠道 / issue coupons, edit channels",
    "contests:read": "看比赛 / read contests",
    "contests:write": "办比赛、审作品 / run contests, moderate works",
    "partners:write": "管理合作伙伴 / manage partners",
    "audit:read": "看审计记录 / read the audit log",
}
"""What an admin may be allowed; a token without scopes has none."""

admin_scheme = OAuth2PasswordBearer(
    tokenUrl="/v1/auth/token",
    refreshUrl="/v1/auth/token",
    scopes=SCOPES,
    scheme_name="admin",
    description="管理员用邮箱和密码登录；启用了动态口令的，把 6 位口令直接接在密码后面 / "
    "admins log in with email and password; whoever uses one-time passwords types the six digits right after it",
    auto_error=False,
)

OPTIONAL_SCHEME = "bearer, or nothing"
"""A name that OpenAPI documents turn into the choice between a token and none; see kit/openapi.py."""


class _Bearer(HTTPBearer):
    """A bearer token in the document and the caller it names, in one: one dependency less to solve for each request."""

    def __init__(self, judge: Callable[[Caller | None], Caller | None], scheme_name: str = "bearer") -> None:
        super().__init__(
            bearerFormat="JWT",
            scheme_name=scheme_name,
            description="会员或合作伙伴的访问令牌 / a member's or partner's token",
            auto_error=False,
        )
        self.judge = judge

    async def __call__(self, request: Request) -> Caller | None:  # type: ignore[override]  # what it is asked for
        """Whoever is calling, as far as they may."""
        return self.judge(await caller_of(request))


def _member(caller: Caller | None) -> Caller:
    return _as(caller, "member")


def _partner(caller: Caller | None) -> Caller:
    return _as(caller, "partner")


def _member_if_any(caller: Caller | None) -> Caller | None:
    return caller if caller is not None and caller.role == "member" else None


def _anybody(caller: Caller | None) -> Caller:
    if caller is None:
        raise NotAuthenticated
    return caller


async def _admin(request: Request, needed: SecurityScopes, _: Annotated[Any, Security(admin_scheme)]) -> Caller:
    caller = _as(await caller_of(request), "admin")
    if not caller.scopes.issuperset(needed.scopes):
        raise Forbidden(extra={"needed": sorted(needed.scopes)})
    return caller


def _as(caller: Caller | None, role: Role) -> Caller:
    if caller is None:
        raise NotAuthenticated
    if caller.role != role:
        raise Forbidden
    return caller


def wants_caller(dependant: Dependant) -> bool:
    """Whether whoever calls without a token is refused by what an endpoint depends on."""
    call: Any = dependant.call
    if call is _admin or (isinstance(call, _Bearer) and call.judge is not _member_if_any):
        return True
    return any(map(wants_caller, dependant.dependencies))


def admin_with(*scopes: str) -> Any:
    """Depend on the calling admin having all these scopes: `Annotated[Caller, <this>("plans:write")]`."""
    unknown = set(scopes) - SCOPES.keys()
    if unknown:
        raise ValueError(f"unknown scopes {sorted(unknown)}")
    return Security(_admin, scopes=list(scopes))


OptionalMemberDep = Annotated[Caller | None, Depends(_Bearer(_member_if_any, OPTIONAL_SCHEME))]
MemberDep = Annotated[Caller, Depends(_Bearer(_member))]
PartnerDep = Annotated[Caller, Depends(_Bearer(_partner))]
AdminDep = Annotated[Caller, Security(_admin, scopes=[])]
AnyCallerDep = Annotated[Caller, Depends(_Bearer(_anybody))]
