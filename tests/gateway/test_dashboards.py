"""Dashboard and alert rules: they can be read, and every metric that they name is one that we have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY, generate_latest

import services.billing.circuit
import services.billing.line
from gateway import circuit, limits, proxy
from kit import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
OURS = (circuit, limits, metrics, proxy, services.billing.circuit, services.billing.line)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/heika.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in rules()]


def known() -> dict[str, set[str]]:
    """Every series that a process can show, with its labels; `up` is Prometheus' own."""
    found: dict[str, set[str]] = {"up": set()}
    for family in REGISTRY.collect():
        found |= {sample.name: set() for sample in family.samples}
        if family.name.startswith("process_"):
            found[family.name] = set()
    for module in OURS:
        for metric in vars(module).values():
            names = getattr(metric, "_labelnames", None)
            if names is None:
                continue
            base = metric._name
            suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}.get(metric._type, ("",))
            found |= {base + suffix: set(names) for suffix in suffixes}
    return found


def test_every_metric_and_label_that_is_asked_for_exists() -> None:
    have = known()
    # Series without labels of ours show themselves at once.
    assert {"process_cpu_seconds_total", "heika_provider_circuit_open"} <= have.keys()
    assert b"# TYPE heika_request_seconds histogram" in generate_latest(REGISTRY)
    for expression in expressions():
        named = re.findall(r"\b((?:heika|process)_\w+|up)(?:\{([^}]*)\})?", expression)
        assert named, expression
        for name, matchers in named:
            assert name in have, (name, expression)
            labels = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", matchers)) - {"job", "instance"}
            assert labels <= have[name], (name, expression)
    grouped = set(re.findall(r"by \(([^)]*)\)", " ".join(expressions())))
    every = set().union(*have.values()) | {"le"}
    assert {label.strip() for group in grouped for label in group.split(",")} <= every


def test_the_dashboard_can_be_imported() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) == 18
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board["panels"])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "action"}
