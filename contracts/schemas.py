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
    """Why a new schema breaks somebody: a listener of yesterday, or an event of yesterday still in an outbox.

    What an object within it has more does not, if it has a default: listeners pass over what they do not know.
    """
    reasons = [f"{name} is gone" for name in old["properties"] if name not in new["properties"]]
    reasons += [
        f"{name} is another thing now"
        for name, shape in old["properties"].items()
        if name in new["properties"] and not _fits(shape, new["properties"][name], old, new)
    ]
    reasons += [
        f"{name} is newly required: events told before lack it"
        for name in new["properties"]
        if name not in old["properties"] and "default" not in new["properties"][name]
    ]
    return reasons


_PROSE = {"description", "title", "default"}


def _fits(old: Any, new: Any, olds: dict[str, Any], news: dict[str, Any]) -> bool:
    """Whether a shape of one schema, its references followed and its prose left aside, is in the other what it was."""
    if isinstance(old, dict) and isinstance(new, dict):
        old, new = _followed(old, olds), _followed(new, news)
        within = {"properties"} if "properties" in old and "properties" in new else set()
        if within and breaks(old | {"$defs": olds.get("$defs")}, new | {"$defs": news.get("$defs")}):
            return False
        left, right = (shape.keys() - _PROSE - within for shape in (old, new))
        return left == right and all(_fits(old[key], new[key], olds, news) for key in left)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(_fits(*pair, olds, news) for pair in zip(old, new, strict=True))
    return bool(old == new)


def _followed(shape: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in shape:
        shape = schema["$defs"][shape["$ref"].rsplit("/", 1)[1]]
    return shape


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
