"""The real services' documents: they fit together, and every path of theirs is reached."""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator

from gateway.examples import BODIES, FORMS, PARAMETERS
from gateway.openapi import clashes, merge
from gateway.routes import SERVICES, find
from gateway.tags import AUDIENCES
from kit.app import create_app
from onebox.documents import lost

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@cache
def documents() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in SERVICES:
        service = import_module(f"services.{name}.app").service
        found[name] = create_app(service, service.settings(env="sandbox")).openapi()
    return found


@cache
def merged_document() -> dict[str, Any]:
    return merge(documents())


def test_every_public_path_of_a_service_leads_to_it() -> None:
    for name, document in documents().items():
        for path in document["paths"]:
            route = find(path.replace("{", "").replace("}", ""))
            assert route is not None, path
            assert route.service == name, path


def test_no_two_services_mean_different_things_by_one_name() -> None:
    assert clashes(documents()) == []


def test_every_operation_has_a_name_of_its_own() -> None:
    operations = [
        operation["operationId"]
        for document in documents().values()
        for item in document["paths"].values()
        for operation in item.values()
    ]
    assert sorted(operations) == sorted(set(operations))


def test_the_document_is_told_so_that_linters_and_generators_need_not_guess() -> None:
    merged = merged_document()
    # What generated clients call their functions: what they do, and to what; and their classes.
    names = [operation["operationId"] for item in merged["paths"].values() for operation in item.values()]
    assert [name for name in names if "_" not in name or name.startswith("my_")] == []
    assert [name for name in merged["components"]["schemas"] if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", name)] == []
    silent = [
        f"{method} {path}"
        for path, item in merged["paths"].items()
        for method, operation in item.items()
        if "security" not in operation
        or (path.startswith("/v1/") and "400" not in operation["responses"])
        or ("requestBody" in operation and "413" not in operation["responses"])
    ]
    assert silent == []
    assert merged["paths"]["/v1/plans"]["get"]["security"] == []
    assert [one["security"] for item in merged["webhooks"].values() for one in item.values()] == [[]] * 10
    # JavaScript, which reads them with the flag u, knows no other escapes.
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(merged))
    assert [
        one for one in patterns if re.search(r"\\[^\^$.*+?()[\]{}|/dDwWsSbBnrtfvxuc0]", json.loads(f'"{one}"'))
    ] == []
    assert merged["components"]["schemas"]["CampaignIn"]["properties"]["audience"]["pattern"].startswith("^(everyone|")
    assert len(merged["components"]["schemas"]["EndpointIn"]["properties"]["events"]["items"]["enum"]) == 10
    # Null is told of where it may be sent, and a bound is a whole number where its number is.
    course = merged["components"]["schemas"]["CoursePatch"]["properties"]
    assert (course["published"]["type"], course["amount"]["anyOf"][1]["type"]) == ("boolean", "null")
    campaign = merged["components"]["schemas"]["CampaignPatch"]["properties"]
    assert (campaign["kind"]["enum"], campaign["code"]["anyOf"][1]["type"]) == (["percent", "amount"], "null")
    assert json.dumps(course["amount"]["anyOf"][0]["maximum"]) == "99999999"


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_merged_document_is_openapi_3_1_and_all_it_refers_to_is_in_it() -> None:
    merged = merged_document()
    OpenAPI.model_validate(merged)
    assert merged["openapi"] == "3.1.0"
    assert not any(path.startswith("/internal") for path in merged["paths"])
    known = {f"#/components/{kind}/{name}" for kind, items in merged["components"].items() for name in items}
    assert set(references(merged)) <= known
    used = {
        scheme
        for item in merged["paths"].values()
        for operation in item.values()
        for needed in operation.get("security", [])
        for scheme in needed
    }
    assert used <= merged["components"]["securitySchemes"].keys()


def operations() -> dict[str, dict[str, Any]]:
    """The merged document's operations by id."""
    paths = merged_document()["paths"].values()
    return {operation["operationId"]: operation for item in paths for operation in item.values()}


def audience(path: str) -> str:
    """Who works with a path, by its first segments."""
    if path in ("/healthz", "/readyz"):
        return "operations"
    if path.startswith("/v1/auth/totp"):
        return "admin"
    second = path.split("/")[2]
    return {"webhooks": "webhooks", "admin": "admin", "partner": "partner", "sandbox": "sandbox"}.get(second, "app")


def test_every_operation_belongs_to_one_group_of_the_audience_that_its_path_is_for() -> None:
    of_group = {name: who.rsplit(" ", 1)[1] for who, groups in AUDIENCES.items() for name in groups}
    merged = merged_document()
    for path, item in merged["paths"].items():
        for operation in item.values():
            assert [of_group[tag] for tag in operation["tags"]] == [audience(path)], path
            admins = any("admin" in way for way in operation.get("security", ()))
            assert admins == (audience(path) == "admin"), path
            partners = any("partner" in way for way in operation.get("security", ()))
            assert partners == (audience(path) == "partner"), path
    told = {hook["tags"][0] for item in merged["webhooks"].values() for hook in item.values()}
    assert {of_group[tag] for tag in told} == {"partner"}
    listed = [tag["name"] for tag in merged["tags"]]
    assert listed == [tag for group in merged["x-tagGroups"] for tag in group["tags"]]
    assert all(" / " in tag["description"] for tag in merged["tags"])


def test_examples_belong_to_operations_and_parameters_that_exist() -> None:
    known = operations()
    assert BODIES.keys() | FORMS.keys() | PARAMETERS.keys() <= known.keys()
    for name, body in (BODIES | FORMS).items():
        (content,) = known[name]["requestBody"]["content"].values()
        assert content["example"] == body
    for name, values in PARAMETERS.items():
        shown = {item["name"]: item["example"] for item in known[name]["parameters"] if "example" in item}
        assert values.items() <= shown.items()


# Pictures, archives and films have no example that a page could show.
SHOWN = {"application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/calendar", "text/csv"}
SHOWN |= {"text/event-stream", "text/html"}
BYTES: tuple[str, ...] = (
    "image/",
    "audio/*",
    "video/*",
    "text/*",
    "application/*",
    "application/octet-stream",
    "multipart/byteranges",
)
BYTES = (*BYTES, "application/zip", "application/pdf")


def test_every_body_and_every_answer_that_succeeds_has_an_example_that_its_schema_allows() -> None:
    merged = merged_document()
    hooks = [operation for item in merged["webhooks"].values() for operation in item.values()]
    for operation in [*operations().values(), *hooks]:
        name = operation["operationId"]
        answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        for told in [operation.get("requestBody", {}), *answers]:
            for kind, media in told.get("content", {}).items():
                if kind not in SHOWN:
                    assert kind.startswith(BYTES), f"{name}: {kind}"
                    continue
                examples = [one["value"] for one in media.get("examples", {}).values()]
                examples += [media["example"]] if "example" in media else []
                assert examples, f"{name}: {kind}"
                if kind == "application/json":
                    schema = media["schema"] | {"components": merged["components"]}
                    wrong = [
                        str(error.message)
                        for one in examples
                        for error in Draft202012Validator(schema).iter_errors(one)
                    ]
                    assert wrong == [], name


def test_an_operation_says_what_it_does_in_one_line_and_who_may_leave_the_token_out() -> None:
    known = operations()
    assert known["read_campaign_stats"]["summary"] == "How many coupons were given, and what became of them by now"
    assert "description" not in known["read_campaign_stats"]
    assert known["record_touch"]["security"] == [{}, {"bearer": []}]
    assert known["list_orders"]["security"] == [{"bearer": []}]
    headers = {item["name"] for item in known["change_plan"]["parameters"] if item["in"] == "header"}
    assert headers == {"If-Match"}


def test_an_operation_keeps_the_name_that_clients_call_it_by() -> None:
    published = json.loads((DOCS / "openapi.json").read_text())
    assert lost(published, merged_document()) == []
    renamed = {"paths": {"/v1/plans": {"get": {"operationId": "a"}, "post": {"operationId": "b"}}}}
    kept = {"paths": {"/v1/plans": {"get": {"operationId": "a"}, "post": {"operationId": "c"}}}}
    assert lost(renamed, kept) == ["POST /v1/plans b"]


def test_exactly_the_operations_that_ask_for_no_token_are_excepted_from_the_rule_that_they_must() -> None:
    """Otherwise a call that forgot to say who may make it would pass for one that everybody may."""
    rules = (DOCS / "spectral" / ".spectral.yaml").read_text()
    excepted: set[str] = set()
    for block in rules.split("  - files:")[1:]:
        if "-restricted: off" in block:
            found = re.findall(r"openapi\.json#/paths/([^\"\n]+)", block)
            excepted |= {
                one.replace("%7B", "{").replace("%7D", "}").replace("~1", "/").replace("~0", "~") for one in found
            }
    merged = merged_document()
    open_doors = {
        path
        for path, item in merged["paths"].items()
        for operation in item.values()
        if not operation.get("security") or operation["security"] == [[]]
    }
    assert open_doors == excepted


def inputs(operation: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for parameter in operation.get("parameters", ()):
        yield parameter["name"], parameter["schema"]
    for media in operation.get("requestBody", {}).get("content", {}).values():
        yield "body", media["schema"]


def unbounded(where: str, schema: Any, known: dict[str, Any], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """What a caller may send without end."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name not in seen:
            yield from unbounded(f"{where}:{name}", known[name], known, seen | {name})
        return
    ends = {
        "string": {"maxLength", "enum", "const", "format", "contentMediaType"},
        "integer": {"maximum", "exclusiveMaximum", "enum", "const"},
        "array": {"maxItems"},
    }
    kind = schema.get("type")
    if kind in ends and not ends[kind] & schema.keys():
        yield where
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from unbounded(where, inner, known, seen)
    for several in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for one in schema.get(several, ()):
            yield from unbounded(where, one, known, seen)
    for name, inner in schema.get("properties", {}).items():
        yield from unbounded(f"{where}.{name}", inner, known, seen)


def test_whatever_callers_send_has_an_end() -> None:
    schemas = merged_document()["components"]["schemas"]
    endless = {
        f"{name} {found}"
        for name, operation in operations().items()
        for where, schema in inputs(operation)
        # A path is as long as the front lets it be.
        if not any(item["name"] == where and item["in"] == "path" for item in operation.get("parameters", ()))
        for found in unbounded(where, schema, schemas)
    }
    assert endless == set()
