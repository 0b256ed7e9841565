"""One OpenAPI 3.1 document out of those of the services."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.examples import fill_in
from gateway.intro import INFO
from gateway.own_document import OWN_DOCUMENT
from gateway.samples import show
from gateway.tags import AUDIENCES, TAGS
from gateway.usual_answers import complete, shared, sized
from kit.auth import SCOPES, admin_scheme
from kit.openapi import with_references

Document = dict[str, Any]

_PLACES: Final = {tag: place for place, tag in enumerate(TAGS)}

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_HIDDEN: Final = ("/internal", "/healthz", "/readyz", "/metrics", "/docs", "/redoc", "/openapi.json")

_VERIFIED: Final = "one algorithm, the issuer, the audience and a short life are required of every token (RFC8725)"

SECURITY: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": f"会员或合作伙伴的访问令牌 / a member's or partner's access token; {_VERIFIED}",
    },
    "admin": {
        "type": "oauth2",
        "description": f"{admin_scheme.model.description}; {_VERIFIED}",
        "flows": {"password": {"tokenUrl": "/v1/auth/token", "refreshUrl": "/v1/auth/token", "scopes": SCOPES}},
    },
    "partner": {
        "type": "oauth2",
        "description": f"合作伙伴用 client_id 和 client_secret / partners use their client id and secret; {_VERIFIED}",
        "flows": {"clientCredentials": {"tokenUrl": "/v1/auth/token", "scopes": {}}},
    },
}


def merge(documents: Mapping[str, Document]) -> Document:
    """The public document of these services and the gateway, by service name; the same input gives the same bytes.

    Components that are equal are shared, those that differ under one name are told apart by the service's name. A path
    and method of two services is a ValueError: the route table can lead to one only.
    """
    paths: dict[str, Document] = {}
    webhooks: dict[str, Document] = {}
    components: dict[str, dict[str, Any]] = {}
    listed: set[str] = set()
    for service, document in [*documents.items(), ("gateway", OWN_DOCUMENT)]:
        public = {path: item for path, item in document.get("paths", {}).items() if not path.startswith(_HIDDEN)}
        if service == "gateway":
            public = document["paths"]
        renamed = _take_components(service, document, components)
        for path, item in public.items():
            _take_path(service, path, with_references(item, renamed), paths, listed)
        for told, item in with_references(document.get("webhooks", {}), renamed).items():
            # Signed, not authorized by a token.
            webhooks[told] = {method: {"security": []} | operation for method, operation in item.items()}
    schemes = components.pop("securitySchemes", {}) | SECURITY
    _name_uniquely(paths)
    for path, item in paths.items():
        for method in item.keys() & set(METHODS):
            complete(path, item[method])
            show(item[method], components["schemas"])
    operations = [paths[path][method] for path in sorted(paths) for method in METHODS if method in paths[path]]
    components["responses"] = components.get("responses", {}) | shared(operations)
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": "/", "x-internal": False}],
        "tags": [{"name": name, "description": TAGS.get(name, name)} for name in sorted(listed, key=_place)],
        "x-tagGroups": _audiences(listed),
        "paths": {path: _in_order(sized(paths[path])) for path in sorted(paths)},
        "webhooks": sized(webhooks),
        "components": {
            **{kind: sized(dict(sorted(items.items()))) for kind, items in sorted(components.items())},
            # In this order Swagger UI's dialog opens on the admin's name and password.
            "securitySchemes": {name: schemes[name] for name in (*SECURITY, *sorted(schemes.keys() - SECURITY.keys()))},
        },
    }


def _audiences(listed: set[str]) -> list[Document]:
    """The groups in use by who works with them; ReDoc leaves out whatever has no place here."""
    placed = [
        {"name": audience, "tags": [name for name in groups if name in listed]}
        for audience, groups in AUDIENCES.items()
    ]
    others = {"name": "其他 / others", "tags": sorted(listed - TAGS.keys())}
    return [group for group in (*placed, others) if group["tags"]]


def _place(tag: str) -> tuple[int, str]:
    """Where a tag is listed; one without a place comes last."""
    return (_PLACES.get(tag, len(_PLACES)), tag)


def clashes(documents: Mapping[str, Document]) -> list[str]:
    """The components that two services describe differently under one name, as `kind/name`."""
    seen: dict[str, Any] = {}
    found: set[str] = set()
    for document in documents.values():
        for kind, name, component in _components(document):
            if seen.setdefault(f"{kind}/{name}", component) != component:
                found.add(f"{kind}/{name}")
    return sorted(found)


def _components(document: Document) -> Iterator[tuple[str, str, Any]]:
    for kind, items in document.get("components", {}).items():
        if kind != "securitySchemes":
            for name, component in items.items():
                yield kind, name, component


def _take_components(service: str, document: Document, components: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Add a service's components; the references to be changed because their name was taken by another thing."""
    renamed: dict[str, str] = {}
    for kind, name, component in _components(document):
        held = components.get(kind, {}).get(name, component)
        if held != component:
            renamed[f"#/components/{kind}/{name}"] = f"#/components/{kind}/{service.capitalize()}{name}"
    for kind, name, component in _components(document):
        reference = renamed.get(f"#/components/{kind}/{name}")
        own_name = reference.rsplit("/", 1)[1] if reference else name
        components.setdefault(kind, {})[own_name] = with_references(component, renamed)
    for name, scheme in document.get("components", {}).get("securitySchemes", {}).items():
        components.setdefault("securitySchemes", {}).setdefault(name, scheme)
    return renamed


def _take_path(service: str, path: str, item: Document, paths: dict[str, Document], listed: set[str]) -> None:
    held = paths.setdefault(path, {})
    for key, value in item.items():
        if key in METHODS:
            if key in held:
                raise ValueError(f"{key.upper()} {path} is described by two services")
            tags = value.get("tags") or [service]
            listed.update(tags)
            if path.startswith("/v1/partner/"):
                # What Authorize logs a partner in to by id and secret, beside a token that was had elsewhere.
                value["security"] = [{"partner": []}, *value.get("security", ())]
            # That nobody must say who they are is said, too: linters and generators take silence for forgetfulness.
            value.setdefault("security", [])
            held[key] = fill_in(value | {"tags": tags})
        else:
            held.setdefault(key, value)


def _in_order(item: Document) -> Document:
    """Methods in one order, whatever order a service lists them in."""
    return {key: item[key] for key in (*METHODS, *sorted(item.keys() - set(METHODS))) if key in item}


def _name_uniquely(paths: dict[str, Document]) -> None:
    """Give an operation whose id is missing or taken one made of its method and path."""
    taken: set[str] = set()
    for path in sorted(paths):
        for method in METHODS:
            operation = paths[path].get(method)
            if operation is None:
                continue
            name = operation.get("operationId")
            if name is None or name in taken:
                words = "".join(letter if letter.isalnum() else "_" for letter in path).strip("_")
                name = f"{method}_{words}"
                operation["operationId"] = name
            taken.add(name)
