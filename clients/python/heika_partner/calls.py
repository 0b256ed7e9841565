"""Calls: with a token that renews itself, tried again where that is safe, and refusals as exceptions."""

import threading
import time
from typing import Any, Final, Self
from uuid import uuid4

import httpx

TRIES: Final = 3
LONGEST_WAIT_S: Final = 30.0
"""Who is asked to wait longer is told so, by the refusal's `retry_after`."""
EARLIER_S: Final = 60.0
"""A token is renewed this long before its end."""
PASSING: Final = frozenset({429, 502, 503, 504})


class Refused(Exception):
    """Heika says no: `code` is stable, the message says what to do next."""

    def __init__(self, answer: httpx.Response) -> None:
        """Made of an answer of 4xx or 5xx; one that is no problem+json gets the code `http_<status>`."""
        told: Any = None
        if "json" in answer.headers.get("content-type", ""):
            try:
                told = answer.json()
            except ValueError:
                told = None
        self.problem: dict[str, Any] = told if isinstance(told, dict) else {}
        self.status = answer.status_code
        self.code = str(self.problem.get("code", f"http_{answer.status_code}"))
        self.action: str | None = self.problem.get("action")
        self.request_id: str | None = self.problem.get("request_id")
        self.retry_after = _seconds(answer)
        super().__init__(f"{self.code}: {self.problem.get('detail') or answer.reason_phrase}")


class Calls:
    """The calls of one client; may be shared by threads."""

    def __init__(self, client: httpx.Client, client_id: str, client_secret: str) -> None:
        """`client` knows the address; it is closed with this."""
        self._client = client
        self._credentials = (client_id, client_secret)
        self._token = ""
        self._good_until = 0.0
        self._renewing = threading.Lock()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON that is answered, None where there is none; Refused, or httpx.TransportError without an answer."""
        headers = {"Idempotency-Key": str(uuid4())} if method == "POST" else {}
        answer = self._send(method, path, headers, request)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            # The token was taken back before its time, with the secret it was made of, or the clock was moved.
            self._good_until = 0.0
            answer = self._send(method, path, headers, request)
        if answer.is_error:
            raise Refused(answer)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, headers: dict[str, str], request: dict[str, Any]) -> httpx.Response:
        return self._try(method, path, headers=headers | {"Authorization": f"Bearer {self._bearer()}"}, **request)

    def _bearer(self) -> str:
        with self._renewing:
            if time.monotonic() >= self._good_until:
                asked_at = time.monotonic()
                client_id, client_secret = self._credentials
                form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
                answer = self._try("POST", "/v1/auth/token", data=form)
                if answer.is_error:
                    raise Refused(answer)
                told = answer.json()
                self._token = str(told["access_token"])
                self._good_until = asked_at + max(float(told["expires_in"]) - EARLIER_S, 1.0)
            return self._token

    def _try(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Safe to do again: every POST has a key or only asks for a token, all else is the same done twice."""
        for left in reversed(range(TRIES)):
            wait = 0.5 * 2.0 ** (TRIES - 1 - left)
            try:
                answer = self._client.request(method, path, **request)
            except httpx.TransportError:
                if not left:
                    raise
            else:
                asked = _seconds(answer)
                passing = answer.status_code in PASSING or _in_flight(answer)
                if not passing or not left or (asked or 0.0) > LONGEST_WAIT_S:
                    return answer
                wait = max(wait, asked or 0.0)
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def _in_flight(answer: httpx.Response) -> bool:
    """Whether the try before this one is still at work."""
    return answer.status_code == httpx.codes.CONFLICT and Refused(answer).code == "idempotency_in_flight"


def _seconds(answer: httpx.Response) -> float | None:
    value = answer.headers.get("retry-after", "")
    return float(value[:9]) if value.isascii() and value.isdigit() else None
