"""Requests at every operation: generated as the document allows and forbids them, and by callers who are no admins."""

import contextlib
import json
import random
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.result import Ok

from tests.onebox.conftest import Heika, any_heika

Operation = APIOperation[Any, Any, Any, Any]
Request = Case[Any]

EXAMPLES = 2
# They would end the session that asks, or the day on which its tokens are good.
LEFT_OUT = {
    "POST /v1/sandbox/clock",
    "POST /v1/auth/logout",
    "DELETE /v1/me",
    "DELETE /v1/me/sessions/{session_id}",
}
# What a list holds is what its items' paths are asked with, half of the time.
LISTS = {
    "course_id": "/v1/courses",
    "contest_id": "/v1/contests",
    "campaign_id": "/v1/coupon-campaigns",
    "live_lesson_id": "/v1/live-lessons",
    "order_id": "/v1/orders",
}


class World:
    """A running Heika, who asks it, and the things that are in it."""

    def __init__(self, heika: Heika) -> None:
        self.address = heika.address
        self.http = requests.Session()
        self.http.trust_env = False
        kept = json.loads((heika.data / "secrets.json").read_text())
        login = {
            "grant_type": "password",
            "username": "admin@heika.local",
            "password": kept["HEIKA_ADMIN_PASSWORD"],
        }
        admin = self._ask("POST", "/v1/auth/token", data=login)["access_token"]
        self.callers = {who: {"Authorization": f"Bearer {token}"} for who, token in (("admin", admin), *self._member())}
        self.callers["nobody"] = {}
        self._ask(
            "POST",
            "/v1/orders",
            json={"plan_code": "black-card-1m", "payment_method": "card"},
            headers=self.callers["member"] | {"Idempotency-Key": str(uuid4())},
        )
        self.things = {name: self._things(path) for name, path in LISTS.items()}
        self.things["lesson_id"] = [
            lesson["id"] for lesson in self._ask("GET", f"/v1/courses/{self.things['course_id'][0]}")["lessons"][:3]
        ]
        # The paths of live lessons call theirs by the same name.
        self.things["lesson_id"] += self.things.pop("live_lesson_id")
        self.things["code"] = ["black-card-1m"]

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self.http.request(method, self.address + path, timeout=10, **options)
        assert answer.ok, answer.text
        return answer.json()

    def _member(self) -> Iterator[tuple[str, str]]:
        phone = f"1391234{random.Random(7).randrange(10**4):04}"
        self._ask("POST", "/v1/auth/otp", json={"phone": phone})
        code = self._ask("GET", "/v1/sandbox/otp", params={"phone": phone})["code"]
        yield "member", self._ask("POST", "/v1/auth/otp/verify", json={"phone": phone, "code": code})["access_token"]

    def _things(self, path: str) -> list[str]:
        found = self._ask("GET", path, headers=self.callers["member"] if path == "/v1/orders" else {})["items"][:3]
        assert found, path
        return [item["id"] for item in found]

    def status(self, case: Request, who: str) -> int:
        """The answer to a generated request; 0 for one that cannot be written as HTTP."""
        wanted = case.as_transport_kwargs(base_url=self.address)
        wanted["headers"] = dict(wanted.get("headers") or {}) | self.callers[who]
        try:
            # Streams have no end to wait for.
            with self.http.request(**wanted, stream=True, allow_redirects=False, timeout=20) as answer:
                if "event-stream" not in answer.headers.get("content-type", ""):
                    _ = answer.content
                return answer.status_code
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
            return 0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with any_heika() as heika:
        heika.start()
        yield World(heika)


def fuzz(world: World, operation: Operation, mode: GenerationMode) -> tuple[int, list[str]]:
    """Ask one operation a few times; how often an answer came, and the requests that were answered 5xx."""
    answered = 0
    broken: list[str] = []

    @given(
        case=operation.as_strategy(generation_mode=mode),
        who=some.sampled_from(sorted(world.callers)),
        real=some.booleans(),
    )
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Request, who: str, real: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
        nonlocal answered
        if real:
            for name in set(case.path_parameters or {}) & set(world.things):
                case.path_parameters[name] = world.things[name][0]
        status = world.status(case, who)
        answered += status > 0
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # Not raised: a repetition, which hypothesis would make, meets another state.
            broken.append(f"{status} for {who}: {case.as_curl_command()}")

    # Not every operation has something to get wrong.
    with contextlib.suppress(Unsatisfiable):
        run()
    return answered, broken


@pytest.mark.timeout(300)
def test_no_generated_request_is_answered_with_a_server_error(world: World) -> None:
    schema = schemathesis.openapi.from_url(f"{world.address}/openapi.json")
    operations: dict[str, Operation] = {}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operations[found.ok().label] = found.ok()
    assert set(operations) > LEFT_OUT
    answers = {
        (label, mode): fuzz(world, operation, mode)
        for label, operation in operations.items()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if label not in LEFT_OUT
    }
    assert [request for _, broken in answers.values() for request in broken] == []
    assert [label for (label, mode), (times, _) in answers.items() if mode.is_positive and times == 0] == []


def test_who_may_not_call_is_told_so_before_anything_is_looked_for(world: World) -> None:
    paths: dict[str, Any] = world.http.get(f"{world.address}/openapi.json", timeout=20).json()["paths"]
    nothing = {"headers": {"Idempotency-Key": "of nobody"}, "timeout": 20}
    wrong: list[tuple[str, str, int]] = []
    for path, operations in paths.items():
        address = world.address + re.sub(r"\{[^}]+\}", str(uuid4()), path)
        for method in {"get", "post", "put", "patch", "delete"} & set(operations):
            asked: dict[str, Any] = nothing | {"json": None if method in ("get", "delete") else {}}
            ways = operations[method].get("security", [])
            if ways and all(ways) and (status := world.http.request(method, address, **asked).status_code) != 401:
                wrong.append(("nobody", f"{method} {path}", status))
            asked["headers"] = asked["headers"] | world.callers["member"]
            if (
                path.startswith("/v1/admin/")
                and (status := world.http.request(method, address, **asked).status_code) != 403
            ):
                wrong.append(("member", f"{method} {path}", status))
    assert wrong == []
