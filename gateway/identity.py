"""Who is calling, judged at the front: a bearer token that is present but bad ends here; services judge again."""

from http import HTTPStatus

import structlog
from starlette.types import ASGIApp

from gateway.calls import NoAnswer, ask
from gateway.inbound import Inbound
from gateway.problems import AmbiguousAuthorization
from gateway.routes import Route
from kit import auth
from kit.auth import Caller
from kit.errors import NotAuthenticated
from kit.keys import KeysUnavailable

log = structlog.get_logger(__name__)


class KeySource:
    """The public keys of members, fetched through its upstream; `away` while it does not answer."""

    def __init__(self) -> None:
        self.away = False

    def fetch_through(self, members: ASGIApp) -> None:
        """Make this process verify tokens with the keys that `members` publishes."""

        async def fetch() -> dict[str, object]:
            try:
                answer = await ask(members, "GET", "/.well-known/jwks.json")
                published: dict[str, object] = answer.json()
                self.away = answer.status != HTTPStatus.OK
            except (NoAnswer, ValueError) as failure:
                self.away = True
                raise ValueError("members does not answer") from failure
            if self.away:
                raise ValueError(f"members answers {answer.status}")
            return published

        auth.keys.fetch = fetch


async def caller_at_front(inbound: Inbound, route: Route, source: KeySource) -> Caller | None:
    """The caller a good bearer token names; None without one. Raises what `verify` raises for a bad one.

    `inbound.judged` says that a service in this process would find the same, and need not look again.
    """
    if inbound.authorization is None:
        inbound.judged = True
        return None
    if inbound.ambiguous:
        raise AmbiguousAuthorization
    scheme, _, token = inbound.authorization.decode("latin-1").partition(" ")
    if (scheme != "Bearer" and scheme.lower() != "bearer") or not route.checks_bearer:
        return None
    token = token.strip()
    try:
        # Most are known, and need no coroutine to be looked up.
        caller = auth.recall(token) or await auth.verify(token)
    except (NotAuthenticated, KeysUnavailable):
        # Without keys nobody can say that it is bad; the service, which may have them, decides.
        if source.away:
            return None
        raise
    inbound.judged = True
    return caller
