"""What stands around Dagster's chart in a cluster: known to Kubernetes, restricted, granted what it needs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from edge_ai_assets.runtimes.interface import Release
from edge_ai_assets.runtimes.manifests import USER, render
from edge_ai_assets.runtimes.placement import Placement

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SIDES = ("azure", "stack_hub")
FILES = [
    DEPLOY / "login.yaml",
    *(path for side in SIDES for path in sorted((DEPLOY / side / "kubernetes").glob("*.yaml"))),
]
PARTS = {"code", "daemon", "web", "login", "postgres", "join", "function"}


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def everything():
    return [(path, each) for path in FILES for each in documents(path)]


def pods():
    for path, each in everything():
        if "template" in each.get("spec", {}):
            yield (
                f"{path.parent.parent.name}/{path.name}/{each['metadata']['name']}",
                each["spec"]["template"],
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_kubernetes_knows_every_field(path):
    import kubernetes_validate

    for each in documents(path):
        kubernetes_validate.validate(each, "1.36", strict=True)
        if each["kind"] not in ("Namespace", "StorageClass"):
            assert each["metadata"]["namespace"] == "edge-ai"


@pytest.mark.parametrize(("name", "template"), pods())
def test_every_pod_is_restricted(name, template):
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    assert template["metadata"]["labels"]["edge-ai-assets/part"] in PARTS


@pytest.mark.parametrize("side", SIDES)
def test_policies_start_from_nothing_and_name_parts_that_are_there(side):
    policies = documents(DEPLOY / side / "kubernetes" / "network.yaml")
    assert {each["kind"] for each in policies} == {"NetworkPolicy"}
    assert policies[0]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [],
    }
    named = set(re.findall(r"part: (\w+)", yaml.safe_dump(policies)))
    for each in re.findall(r"values:((?:\n *- \w+)+)", yaml.safe_dump(policies)):
        named |= set(re.findall(r"\w+", each))
    assert named <= PARTS
    (web,) = [each for each in policies if each["metadata"]["name"] == "web-in"]
    (rule,) = web["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"edge-ai-assets/part": "login"}}}]


def test_a_site_has_no_way_out_but_the_uplink():
    """Without uplink.yaml: the API server and AD FS, single addresses that are filled in."""
    out = [
        block["ipBlock"]["cidr"]
        for each in documents(DEPLOY / "stack_hub" / "kubernetes" / "network.yaml")
        for rule in each["spec"].get("egress", [])
        for block in rule["to"]
        if "ipBlock" in block
    ]
    assert len(out) == 2
    assert all(cidr.endswith("/32") for cidr in out)


def test_the_launcher_may_do_what_dagster_k8s_asks_for_and_no_more():
    """What its client calls in the batch and core API, as verbs; waiting for steps' jobs is not among it."""
    import dagster_k8s.client as client

    called = set(re.findall(r"(?:batch|core)_api\.(\w+?)_namespaced_(\w+)", inspect.getsource(client)))
    verbs = {"read": "get"}
    resources = {
        "job": "jobs",
        "job_status": "jobs/status",
        "pod": "pods",
        "pod_log": "pods/log",
        "event": "events",
    }
    asked = {(resources[what], verbs.get(verb, verb)) for verb, what in called}
    for side in SIDES:
        (role,) = [
            each for each in documents(DEPLOY / side / "kubernetes" / "before.yaml") if each["kind"] == "Role"
        ]
        allowed = {
            (what, verb) for rule in role["rules"] for what in rule["resources"] for verb in rule["verbs"]
        }
        assert allowed == asked


def test_the_accounts_of_the_values_are_made():
    for side in SIDES:
        values = yaml.safe_load((DEPLOY / side / "values.yaml").read_text())
        folder = DEPLOY / side / "kubernetes"
        made = {
            each["metadata"]["name"]
            for path in folder.glob("*.yaml")
            for each in documents(path)
            if each["kind"] == "ServiceAccount"
        }
        wanted = {
            values["serviceAccount"]["name"],
            values["dagster-user-deployments"]["serviceAccount"]["name"],
        }
        assert wanted <= made
        assert not values["serviceAccount"]["create"]


def test_disks_of_the_values_are_made_and_the_outbox_is_the_scoring_services(tmp_path):
    for side in SIDES:
        (code,) = yaml.safe_load((DEPLOY / side / "values.yaml").read_text())["dagster-user-deployments"][
            "deployments"
        ]
        made = {
            each["metadata"]["name"]: each
            for each in documents(DEPLOY / side / "kubernetes" / "before.yaml")
            if each["kind"] == "PersistentVolumeClaim"
        }
        claims = {
            each["persistentVolumeClaim"]["claimName"]
            for each in code["volumes"]
            if "persistentVolumeClaim" in each
        }
        assert claims == set(made)
        if side == "stack_hub":
            release = Release("sha256:" + "0" * 64, 1, tmp_path)
            rendered = render(Placement("bergen", "r.lan/edge/pump"), release, timeout=60)
            (claim,) = [each for each in rendered if each["kind"] == "PersistentVolumeClaim"]
            assert made["scoring-bergen-outbox"] == claim
            assert code["podSecurityContext"]["runAsUser"] == USER, "both write one file"


def test_no_service_is_named_as_our_settings_are():
    """Its address would be in every pod's environment as EDGE_AI_…, where an unknown name is refused."""
    names = [each["metadata"]["name"] for _, each in everything() if each["kind"] == "Service"]
    for side in SIDES:
        (code,) = yaml.safe_load((DEPLOY / side / "values.yaml").read_text())["dagster-user-deployments"][
            "deployments"
        ]
        names.append(code["name"])
    assert names
    assert not [name for name in names if name.startswith(("edge-ai", "dagster-webserver"))]
