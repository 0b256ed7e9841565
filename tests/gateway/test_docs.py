"""The merged document and the pages that show it, without the internet."""

import re
from typing import Any

import pytest
from fastapi import FastAPI

from gateway.docs import ASSETS, asset
from gateway.openapi import clashes, merge
from gateway.routes import SERVICES, find
from kit.errors import problems
from kit.group import QueueFull
from tests.gateway.conftest import Front, Start


def document(path: str, schema: dict[str, Any], **operation: Any) -> dict[str, Any]:
    reference = {"schema": {"$ref": "#/components/schemas/Thing"}}
    answer = {"200": {"description": "ok", "content": {"application/json": reference}}}
    return {
        "openapi": "3.1.0",
        "paths": {
            path: {"get": {"responses": answer} | operation},
            "/internal/clock": {"post": {}},
            "/readyz": {"get": {}},
        },
        "components": {"schemas": {"Thing": schema, "List": {"items": reference["schema"]}}},
    }


def reference_of(merged: dict[str, Any], path: str) -> str:
    schema: str = merged["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    return schema


def test_equal_components_are_shared_and_different_ones_told_apart() -> None:
    one = document("/v1/plans", {"type": "string"}, operationId="list", tags=["plans"])
    two = document("/v1/courses", {"type": "string"}, operationId="list")
    three = document("/v1/contests", {"type": "integer"})
    assert clashes({"billing": one, "courses": two}) == []
    assert clashes({"billing": one, "courses": two, "showcase": three}) == ["schemas/Thing"]
    merged = merge({"billing": one, "courses": two, "showcase": three})
    assert reference_of(merged, "/v1/plans") == reference_of(merged, "/v1/courses") == "#/components/schemas/Thing"
    assert reference_of(merged, "/v1/contests") == "#/components/schemas/ShowcaseThing"
    assert merged["components"]["schemas"]["ShowcaseThing"] == {"type": "integer", "format": "int64"}
    identifiers = [item["operationId"] for path in merged["paths"].values() for item in path.values()]
    assert len(identifiers) == len(set(identifiers))
    assert merged["paths"]["/v1/contests"]["get"]["tags"] == ["showcase"]


def test_internal_paths_stay_inside_and_the_order_is_stable() -> None:
    one, two = document("/v1/plans", {}), document("/v1/courses", {})
    merged = merge({"billing": one, "courses": two})
    assert not any("internal" in path for path in merged["paths"])
    assert list(merged["paths"]) == sorted(merged["paths"])
    assert merged["paths"]["/readyz"]["get"]["operationId"] == "gateway_ready"
    assert merged == merge({"billing": one, "courses": two})
    assert merged["openapi"] == "3.1.0"
    assert merged["servers"] == [{"url": "/", "x-internal": False}]
    assert merged["components"]["securitySchemes"]["admin"]["flows"]["password"]["tokenUrl"] == "/v1/auth/token"
    assert (
        merged["components"]["securitySchemes"]["partner"]["flows"]["clientCredentials"]["tokenUrl"] == "/v1/auth/token"
    )
    assert merged["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_one_path_and_method_of_two_services_is_an_error() -> None:
    with pytest.raises(ValueError, match="described by two services"):
        merge({"billing": document("/v1/plans", {}), "courses": document("/v1/plans", {})})


def test_what_the_front_and_the_way_there_may_answer_is_described_once_and_for_every_operation() -> None:
    merged = merge({"billing": document("/v1/plans", {}), "members": document("/v1/auth/otp", {})})
    shared = merged["components"]["responses"]

    def usual(path: str) -> dict[str, str]:
        answers = merged["paths"][path]["get"]["responses"]
        return {status: answer["$ref"].rsplit("/", 1)[1] for status, answer in answers.items() if "$ref" in answer}

    everywhere = {"400": "BadRequest", "429": "TooManyRequests", "500": "Internal"}
    behind = {"502": "BadUpstream", "503": "Unavailable", "504": "UpstreamTimeout"}
    assert usual("/v1/plans") == everywhere | behind | {"401": "NotAuthenticated"}
    # Who logs in again may send a token that is over.
    assert usual("/v1/auth/otp") == everywhere | behind
    # What an operation says itself stays, and stands once where several say the same.
    assert usual("/v1/me/dashboard") == everywhere | {"401": "NotAuthenticated", "403": "Forbidden"}
    assert usual("/healthz") == {"500": "Internal"}
    for answer in shared.values():
        assert answer["content"]["application/problem+json"]["examples"]
    # An operation's own 503 does not hide that its service may be away.
    told = {"503": problems(QueueFull)[503]}
    joined = merge({"billing": document("/v1/plans", {}, responses=told)})["paths"]["/v1/plans"]["get"]
    assert list(joined["responses"]["503"]["content"]["application/problem+json"]["examples"]) == [
        "queue_full",
        "upstream_unavailable",
        "database_unavailable",
    ]


def refused(path: str, *codes: str) -> dict[str, Any]:
    told = {"application/problem+json": {"examples": {code: {"value": {"code": code}} for code in codes}}}
    return document(path, {}, responses={"409": {"description": " ".join(codes), "content": told}})


def test_problems_that_several_operations_answer_are_described_once() -> None:
    alike = {
        "billing": refused("/v1/plans", "sold_out", "too_late"),
        "courses": refused("/v1/courses", "sold_out", "too_late"),
    }
    merged = merge(alike | {"showcase": refused("/v1/contests", "contest_closed")})
    name = "SoldOutOrTooLate"
    for path in ("/v1/plans", "/v1/courses"):
        assert merged["paths"][path]["get"]["responses"]["409"] == {"$ref": f"#/components/responses/{name}"}
    assert merged["components"]["responses"][name]["description"] == "sold_out too_late"
    assert "content" in merged["paths"]["/v1/contests"]["get"]["responses"]["409"]
    # The same codes told in other words stay where they are.
    alike["courses"]["paths"]["/v1/courses"]["get"]["responses"]["409"]["description"] = "otherwise"
    merged = merge(alike)
    told = [merged["paths"][path]["get"]["responses"]["409"]["description"] for path in ("/v1/plans", "/v1/courses")]
    assert told == ["sold_out too_late", "otherwise"]


def test_answers_without_an_example_get_one_that_their_schema_allows() -> None:
    thing = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "amount": {"type": "integer"},
            "status": {"enum": ["draft", "shown"]},
            "next_cursor": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "part": {"$ref": "#/components/schemas/Thing"},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        },
    }
    merged = merge({"billing": document("/v1/plans", thing)})
    shown = merged["paths"]["/v1/plans"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    assert (shown["amount"], shown["status"], shown["next_cursor"]) == (4900, "draft", None)
    assert shown["part"]["id"] == shown["id"]
    assert [type(value) for value in shown["pair"]] == [int, str]
    assert merge({"billing": document("/v1/plans", thing)}) == merged


async def test_the_document_is_asked_of_the_services_and_cached_by_its_tag(start_here: Start) -> None:
    shop = FastAPI()

    @shop.get("/v1/plans")
    async def plans() -> list[str]:
        return []

    async with start_here(upstreams={"billing": shop}) as front:
        answer = await front.client.get("/openapi.json")
        assert answer.headers["content-type"] == "application/json"
        assert {"/v1/plans", "/healthz", "/v1/sandbox/clock"} <= answer.json()["paths"].keys()
        again = await front.client.get("/openapi.json", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_both_pages_work_from_this_address_alone(front: Front) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        page = await front.client.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        again = await front.client.get(path, headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", page.text) == []
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert not re.search(r"https?:|\*|'unsafe-eval'", policy)
        for source in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            assert (await front.client.get(source)).status_code == 200, source
    assert "'sha256-" in (await front.client.get("/docs")).headers["content-security-policy"]
    assert "persistAuthorization" in (await front.client.get("/docs")).text


async def test_the_root_leads_to_the_documentation(front: Front) -> None:
    answer = await front.client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_the_pages_files_come_packed_and_tagged_and_without_redocs_foreign_logo(front: Front) -> None:
    for name, media_type in ASSETS.items():
        answer = await front.client.get(f"/docs/assets/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == media_type
        again = await front.client.get(f"/docs/assets/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert b"cdn.redoc.ly" not in asset(name)
    packed = await front.client.get("/docs/assets/redoc.standalone.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert (await front.client.get("/docs/assets/../../app.py")).status_code == 404
    assert (await front.client.get("/docs/assets/%2e%2e/x")).status_code == 400


async def test_a_wrong_method_says_which_are_right(front: Front) -> None:
    answer = await front.client.post("/docs")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


def test_the_gateways_own_paths_are_in_its_route_table() -> None:
    for path in merge({})["paths"]:
        route = find(path)
        assert route is not None
        assert route.service == "gateway"
    assert "gateway" not in SERVICES
