"""The services fit together: who tells whom, whose endpoint is where, and what the documents say of it."""

from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from contracts.schemas import TELLERS, current
from gateway.openapi import merge
from kit.app import Service, create_app
from kit.events import EVENTS
from kit.openapi import METHODS, service_document

ROOT = Path(__file__).resolve().parent.parent


def services() -> dict[str, Service]:
    return {name: import_module(f"services.{name}.app").service for name in TELLERS}


@cache
def documents() -> dict[str, dict[str, object]]:
    return {
        name: service_document(create_app(service, service.settings(env="sandbox")))
        for name, service in services().items()
    }


def test_each_teller_names_exactly_those_who_listen() -> None:
    found = services()
    for teller in TELLERS:
        listening = {
            name for name, service in found.items() if any(event.teller() == teller for event in service.handlers)
        }
        assert set(found[teller].listeners) == listening, teller


def test_every_event_of_the_contracts_is_one_of_a_service() -> None:
    assert {name.split(".")[0] for name in current()} <= set(TELLERS)
    for service in services().values():
        assert all(event.wire_type in EVENTS for event in service.handlers)


def test_operation_ids_are_unique_over_all_services() -> None:
    names = Counter(
        operation["operationId"]
        for document in documents().values()
        for path in document["paths"].values()  # type: ignore[attr-defined]
        for method, operation in path.items()
        if method in METHODS
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_every_endpoint_says_in_one_line_what_it_does() -> None:
    silent = [
        f"{method} {path}"
        for document in documents().values()
        for path, item in document["paths"].items()  # type: ignore[attr-defined]
        for method, operation in item.items()
        # What FastAPI makes of the function's name, when there is no docstring, says nothing.
        if method in METHODS and operation["summary"] in ("", operation["operationId"].replace("_", " ").title())
    ]
    assert silent == []


def test_every_admin_endpoint_asks_for_an_admin() -> None:
    open_doors = [
        f"{method} {path}"
        for document in documents().values()
        for path, item in document["paths"].items()  # type: ignore[attr-defined]
        for method, operation in item.items()
        if path.startswith("/v1/admin/") and not any("admin" in scheme for scheme in operation.get("security", []))
    ]
    assert open_doors == []


def test_the_merged_document_is_whole() -> None:
    merged = merge(documents())
    assert merged["openapi"].startswith("3.1")
    paths = {path for document in documents().values() for path in document["paths"]}  # type: ignore[attr-defined]
    assert paths - {path for path in paths if path.startswith("/internal")} <= merged["paths"].keys()


@pytest.mark.parametrize("name", TELLERS)
def test_production_has_no_sandbox_endpoint(name: str) -> None:
    service = services()[name]
    settings = service.settings(env="production", database_url="postgresql+asyncpg://nobody@127.0.0.1:1/x")
    paths = service_document(create_app(service, settings))["paths"]
    assert [path for path in paths if "sandbox" in path or "internal" in path] == []
