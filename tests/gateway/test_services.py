"""The real services' documents: they fit together, and every path of theirs is reached."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from fastapi.openapi.models import OpenAPI

from gateway.openapi import clashes, merge
from gateway.routes import SERVICES, find
from kit.app import create_app


@cache
def documents() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in SERVICES:
        service = import_module(f"services.{name}.app").service
        found[name] = create_app(service, service.settings(env="sandbox")).openapi()
    return found


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
    merged = merge(documents())
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
