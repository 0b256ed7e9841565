"""The committed documents: docs/openapi.json and deploy/nginx.conf, written from the code."""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from kit.settings import Settings
from onebox.environment import UPSTREAMS
from onebox.trouble import Trouble

ROOT = Path(__file__).resolve().parent.parent
OPENAPI = ROOT / "docs" / "openapi.json"
NGINX = ROOT / "deploy" / "nginx.conf"


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


def edge() -> str:
    """Nginx's configuration where every setting has its default, and services are found by their names."""
    from gateway.edge import UPSTREAMS as ALL  # noqa: PLC0415 - the gateway is loaded for the documents only
    from gateway.edge import configuration  # noqa: PLC0415

    return configuration(Settings.model_construct(), {name: f"http://{name}:8000" for name in ALL})


class Renamed(Trouble):
    """Operations that clients call by name would be gone, or called otherwise."""


def lost(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The operations of one document, as `METHOD path name`, that another does not have under that name."""
    return sorted(_operations(old) - _operations(new))


def _operations(document: dict[str, Any]) -> set[str]:
    return {
        f"{method.upper()} {path} {operation['operationId']}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def write(*, check: bool, breaking: bool = False) -> None:
    """Write the documents, or raise OutOfDate when a committed one differs; Renamed for a break that is not meant."""
    document = merged()
    texts = {OPENAPI: json.dumps(document, indent=1, ensure_ascii=False) + "\n", NGINX: edge()}
    if check:
        for path, text in texts.items():
            if not path.exists() or path.read_text() != text:
                raise OutOfDate(
                    f"{path.relative_to(ROOT)} is not what the code says: run `make openapi` and look at the difference.",
                    f"{path.relative_to(ROOT)} 与代码不一致:请运行 make openapi 并检查差异。",
                )
        return
    gone = lost(json.loads(OPENAPI.read_text()), document) if OPENAPI.exists() else []
    if gone and not breaking:
        raise Renamed(
            f"Clients know these operations by name: {', '.join(gone)}. Keep them, or say --breaking if they may go.",
            f"客户端按名称使用这些操作:{', '.join(gone)}。请保留;确要移除时加上 --breaking。",
        )
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    print(f"written: {', '.join(str(path.relative_to(ROOT)) for path in texts)}")
