"""What `deploy/` starts gets the settings it needs, and no more; the chart is rendered by Helm itself where that is had."""

import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.routes import SERVICES
from kit.connection import LARGEST_FRAME
from onebox.environment import _MADE, database_variable
from onebox.listing import listing

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
CHART = DEPLOY / "chart"
needs_helm = pytest.mark.skipif(
    find_spec("helm_python") is None or find_spec("kubernetes_validate") is None,
    reason="Helm and Kubernetes' schemas are not installed (pip install helm-python-sdk kubernetes-validate)",
)
# What no start in production does without; the embedded start makes all but Stripe's key.
REQUIRED = {*_MADE, "STRIPE_SECRET_KEY", "HEIKA_ADMIN_EMAIL", "REDIS_URL", *map(database_variable, SERVICES)}
VALUES = {"publicUrl": "https://api.example.com", "buckets": {"showcase": "pictures", "courses": "media"}}
# In a process of its own: the library brings Go's runtime along.
RENDER = """
import json, sys, helm_python as helm
for values in json.loads(sys.argv[2]):
    with helm.Chart.load(sys.argv[1]) as chart:
        try:
            chart.validate_schema(chart.merge_values(values))
            print(json.dumps(chart.render(values, name="shop", namespace="prod")))
        except helm.HelmError as refused:
            print(json.dumps({"refused": str(refused)}))
"""


def readers() -> dict[str, set[str]]:
    """Every setting, and which services read it."""
    found = {}
    for setting in listing():
        all_of_them = {"all", "every service"} & set(setting.readers)
        found[setting.name] = set(SERVICES) if all_of_them else set(setting.readers)
    return found


def rendered(*values: dict[str, Any]) -> list[dict[str, str]]:
    """The chart's files for each of these values, or why they are refused."""
    command = [sys.executable, "-c", RENDER, str(CHART), json.dumps([VALUES | own for own in values])]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in said.splitlines()]


@cache
def objects() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the chart would create, without and with an Ingress."""
    ingress = {"host": "api.example.com", "className": "nginx", "tlsSecret": "tls"}
    plain, with_ingress = (
        [one for name, text in files.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
        for files in rendered({}, {"ingress": ingress})
    )
    return plain, with_ingress


def environment(container: dict[str, Any]) -> dict[str, Any]:
    found = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    assert len(found) == len(container["env"]), "a variable is set twice"
    return found


def test_every_process_of_the_chart_gets_the_secrets_it_reads_and_no_others() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    read = readers()
    given: set[str] = set()
    for name, process in values["services"].items():
        for secret in (*process["secrets"], *process["optionalSecrets"]):
            assert name in read[secret], (name, secret)
        given |= set(process["secrets"])
        needed = {one for one in REQUIRED if name in read.get(one, ())}
        assert needed == set(process["secrets"]), name
    assert given == REQUIRED
    assert set(values["services"]) == set(SERVICES)
    # Settings that hold a secret come from the Secret, in whichever way they are given.
    hidden = re.compile(r"(_KEY|_PASSWORD|_SECRET|_TOKEN|_DATABASE_URL|REDIS_URL)$")
    offered = {
        one for process in values["services"].values() for one in (*process["secrets"], *process["optionalSecrets"])
    }
    assert {one for one in read if hidden.search(one)} <= offered


def test_the_compose_file_names_what_is_required_and_asks_for_it() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    for name in SERVICES:
        own = compose["services"][name]
        missing = {one for one in REQUIRED if name in readers().get(one, ())} - own["environment"].keys()
        assert missing == set(), name
        assert own["env_file"] == [{"path": "production.env", "required": False}]
        assert own["healthcheck"]["test"][-1].count("/readyz") == 1
    for name in (*SERVICES, "gateway", "migrate"):
        own = compose["services"][name]
        assert own["stop_grace_period"] == "30s"
        assert own["environment"]["HEIKA_ENV"] == "production"
        assert set(own["environment"]) <= readers().keys(), name
    # No secret has a value here: each comes from outside, and its absence stops the start.
    for name in REQUIRED - {"REDIS_URL"} - set(map(database_variable, SERVICES)):
        assert f"${{{name}:?" in text, name
    assert "${POSTGRES_PASSWORD:?" in text


def test_the_image_speaks_as_the_supervised_processes_do_and_is_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "UVICORN_HTTP=kit.connection:Connection" in text
    assert f"UVICORN_WS_MAX_SIZE={LARGEST_FRAME}" in text
    user, entry = text.index("USER heika"), text.index("ENTRYPOINT")
    assert user < entry
    assert "--uid 10001" in text


@needs_helm
def test_helm_renders_what_kubernetes_takes() -> None:
    schemas = import_module("kubernetes_validate")
    plain, found = objects()
    for one in found:
        for version in ("1.28", "1.33"):
            schemas.validate(one, version, strict=True)
    kinds = [one["kind"] for one in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "Deployment": 6,
        "Service": 6,
        "PodDisruptionBudget": 6,
        "Job": 1,
        "NetworkPolicy": 1,
        "Ingress": 1,
    }
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(names) == len(set(names))
    assert "Ingress" not in [one["kind"] for one in plain]


@needs_helm
def test_every_pod_is_started_probed_and_ended_as_the_product_wants() -> None:
    found, _ = objects()
    processes = {one["metadata"]["name"].removeprefix("shop-"): one for one in found if one["kind"] == "Deployment"}
    assert set(processes) == {*SERVICES, "gateway"}
    known = readers()
    for name, deployment in processes.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        own = environment(container)
        assert own.keys() <= known.keys()
        assert own["HEIKA_ENV"] == "production"
        assert own["HEIKA_INSTANCE"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        # A pod ends after the pause, the grace and a margin.
        grace = next(int(one.rpartition("=")[2]) for one in container["args"] if "graceful-shutdown" in one)
        pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        assert pod["terminationGracePeriodSeconds"] >= pause + grace + 10
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        # The gateway stays in rotation while a service is away.
        ready = "/healthz" if name == "gateway" else "/readyz"
        assert container["readinessProbe"]["httpGet"]["path"] == ready
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container["resources"]["limits"].keys() == {"memory"}
        secrets = {one for one, value in own.items() if isinstance(value, dict) and "secretKeyRef" in value}
        if name == "gateway":
            assert secrets == {"REDIS_URL"}
            upstreams = {f"HEIKA_UPSTREAM_{one.upper()}": f"http://shop-{one}:8000" for one in SERVICES}
            assert {one: own[one] for one in upstreams} == upstreams
        else:
            assert container["args"][2] == f"services.{name}.app:app"
            assert own["HEIKA_TRUSTED_PROXIES"] == "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
            assert all(name in known[one] for one in secrets)
    assert (
        environment(processes["showcase"]["spec"]["template"]["spec"]["containers"][0])["SHOWCASE_S3_BUCKET"]
        == "pictures"
    )
    job = next(one for one in found if one["kind"] == "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    migrate = job["spec"]["template"]["spec"]["containers"][0]
    assert migrate["args"] == ["onebox", "migrate"]
    assert set(map(database_variable, SERVICES)) <= environment(migrate).keys()


@needs_helm
def test_values_that_cannot_be_meant_are_refused() -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"publicUrl": ""},
        {"buckets": {"showcase": "", "courses": "x"}},
        {"settings": {"STRIPE_SECRET_KEY": "sk_live_x"}},
        {"settings": {"HEIKA_ENV": "sandbox"}},
        {"replicas": 3},
    )
    assert [answer.keys() for answer in rendered(*wrong)] == [{"refused"}] * len(wrong)
