"""The events' JSON schemas, committed under docs/events, and what may not change about them."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from kit.events import EVENTS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "events"
TELLERS = ("members", "billing", "courses", "referrals", "showcase")


def current() -> dict[str, dict[str, Any]]:
    """The schema of every contract event, by wire type."""
    for module in (*TELLERS, "notices"):
        import_module(f"contracts.{module}")
    return {
        name: event.model_json_schema(mode="serialization")
        for name, event in sorted(EVENTS.items())
        if name.split(".")[0] in TELLERS
    }


def committed() -> dict[str, dict[str, Any]]:
    """The schemas as committed."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Why a new schema breaks somebody: a listener of yesterday, or an event of yesterday still in an outbox."""
    reasons = [f"{name} is gone" for name in old["properties"] if name not in new["properties"]]
    reasons += [
        f"{name} is another thing now"
        for name, shape in old["properties"].items()
        if name in new["properties"] and _bare(shape, old) != _bare(new["properties"][name], new)
    ]
    reasons += [
        f"{name} is newly required: events told before lack it"
        for name in new["properties"]
        if name not in old["properties"] and "default" not in new["properties"][name]
    ]
    return reasons


def _bare(shape: Any, schema: dict[str, Any]) -> Any:
    """A shape without its prose, with its references followed."""
    if isinstance(shape, dict):
        if "$ref" in shape:
            return _bare(schema["$defs"][shape["$ref"].rsplit("/", 1)[1]], schema)
        return {
            key: _bare(value, schema) for key, value in shape.items() if key not in ("description", "title", "default")
        }
    return [_bare(item, schema) for item in shape] if isinstance(shape, list) else shape


def write() -> None:
    """Commit the current schemas to their folder; a break is refused with ValueError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    old = committed()
    for name, schema in current().items():
        if name in old and (reasons := breaks(old[name], schema)):
            raise ValueError(f"{name}: {'; '.join(reasons)}")
        (FOLDER / f"{name}.json").write_text(json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write()
