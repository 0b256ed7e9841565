"""Samples of answers, made of their schemas and of words that a bakery's learners would write."""

from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

from gateway.sample_words import FILES, NOTHING, OF_SHAPES, WORDS

Schema = Mapping[str, Any]

# Deep enough for a page of entries with their pictures; a shape that holds itself ends here.
_DEPTH: Final = 8
_PLAIN: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def show(operation: dict[str, Any], schemas: Mapping[str, Schema]) -> None:
    """Give each answer of an operation that succeeds an example, unless it has one or is no text."""
    for status, answer in operation["responses"].items():
        if not status.startswith("2"):
            continue
        for kind, media in answer.get("content", {}).items():
            if media.keys() & {"example", "examples"}:
                continue
            name = operation.get("operationId", "")
            if "json" in kind:
                media["example"] = sample(media["schema"], schemas)
            elif (text := FILES.get(name, FILES.get(kind))) is not None:
                media["example"] = text


def sample(schema: Schema, schemas: Mapping[str, Schema], shape: str = "", name: str = "", depth: int = 0) -> Any:
    """A value that the schema allows; `shape` and `name` are the object and the field that it stands in."""
    if "$ref" in schema:
        shape = schema["$ref"].rsplit("/", 1)[1]
        return sample(schemas.get(shape, {}), schemas, shape, name, depth)
    if (words := _words(schema, shape, name)) is not None:
        return words[0]
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return _one_of(several, schemas, shape, name, depth)
    if "allOf" in schema:
        parts = [sample(part, schemas, shape, name, depth) for part in schema["allOf"]]
        return {key: value for part in parts for key, value in part.items()}
    return _made(schema, schemas, shape, name, depth)


def _words(schema: Schema, shape: str, name: str) -> tuple[Any] | None:
    """The word for a field, in a tuple since it may be None, where the schema allows it; its only or first choice."""
    if "const" in schema:
        return (schema["const"],)
    options = [words[name] for part, words in OF_SHAPES if part in shape and name in words]
    options += [None] if name in NOTHING else []
    options += [WORDS[name]] if name in WORDS else []
    options += schema.get("enum", [])[:1]
    return next(((value,) for value in options if _allowed(value, schema)), None)


def _allowed(value: Any, schema: Schema) -> bool:
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        return any(_allowed(value, one) for one in several)
    if "enum" in schema:
        return value in schema["enum"]
    if "$ref" in schema or "type" not in schema or "properties" in schema:
        return False
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if isinstance(value, bool) and "boolean" not in kinds:
        return False
    if isinstance(value, list) and any(not _allowed(item, schema.get("items", {"type": "object"})) for item in value):
        return False
    return any(isinstance(value, _PLAIN[kind]) for kind in kinds)


def _one_of(several: list[Schema], schemas: Mapping[str, Schema], shape: str, name: str, depth: int) -> Any:
    if name in NOTHING and {"type": "null"} in several:
        return None
    something = [one for one in several if one.get("type") != "null"]
    return sample(something[0], schemas, shape, name, depth) if something else None


def _made(schema: Schema, schemas: Mapping[str, Schema], shape: str, name: str, depth: int) -> Any:
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" and depth < _DEPTH:
        made = {
            key: sample(field, schemas, shape, key, depth + 1) for key, field in schema.get("properties", {}).items()
        }
        other = schema.get("additionalProperties")
        if isinstance(other, dict) and other and not made:
            made = {WORDS["key"]: sample(other, schemas, shape, "", depth + 1)}
        return made
    if kind == "array":
        if depth >= _DEPTH:
            return []
        if "prefixItems" in schema:
            return [sample(item, schemas, shape, name, depth + 1) for item in schema["prefixItems"]]
        return [sample(schema.get("items", {}), schemas, shape, name, depth + 1)]
    if kind == "string":
        return _text(schema, shape, name)
    plain: dict[str, Any] = {"integer": int(schema.get("minimum", 1)), "number": 0.5, "boolean": True}
    return plain.get(kind, {} if kind == "object" else None)


def _text(schema: Schema, shape: str, name: str) -> str:
    form = schema.get("format")
    if form == "uuid":
        # The same thing by the same id wherever one answer names it twice.
        thing = name.removesuffix("s") if name != "id" else f"{shape.removesuffix('Out').lower()}_id"
        return f"01990d3f-6c00-7000-8000-{crc32(thing.encode()):012x}"
    return {"date-time": "2026-03-01T02:30:00Z", "date": "2026-03-01"}.get(form or "", name)
