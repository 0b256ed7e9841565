"""The committed documents: docs/openapi.json, written from the code."""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from onebox.environment import UPSTREAMS
from onebox.trouble import Trouble

ROOT = Path(__file__).resolve().parent.parent
OPENAPI = ROOT / "docs" / "openapi.json"


class OutOfDate(Trouble):
    """A committed document is not what the code says."""


def merged() -> dict[str, Any]:
    """The whole public API as one OpenAPI document, the sandbox included; no database is started."""
    os.environ["HEIKA_ENV"] = "sandbox"
    merge = import_module("gateway.openapi").merge
    document: dict[str, Any] = merge(
        {name: import_module(f"services.{name}.app").app().openapi() for name in UPSTREAMS}
    )
    return document


def write(*, check: bool) -> None:
    """Write the document, or raise OutOfDate when the committed one differs."""
    text = json.dumps(merged(), indent=1, ensure_ascii=False) + "\n"
    if check:
        if not OPENAPI.exists() or OPENAPI.read_text() != text:
            raise OutOfDate(
                f"{OPENAPI.relative_to(ROOT)} is not what the code says: run `make openapi` and look at the difference.",
                f"{OPENAPI.relative_to(ROOT)} 与代码不一致:请运行 make openapi 并检查差异。",
            )
        return
    OPENAPI.parent.mkdir(exist_ok=True)
    OPENAPI.write_text(text)
    print(f"written: {OPENAPI.relative_to(ROOT)}")
