"""The Bicep file, as far as it can be judged without its compiler: grammar, names, versions, rights, outputs.

The compiler cannot be had from a package index. That Azure takes the file is not shown here, nor that a
resource has the properties it is given: Azure's definitions of types say that, for each version.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pycep
import pytest

from edge_ai_assets.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
TEXT = (CHECKOUT / "deploy" / "azure" / "infra" / "main.bicep").read_text()
DOCS = (CHECKOUT / "docs" / "azure.md").read_text()
GIVEN = {"guid", "resourceGroup", "subscription", "subscriptionResourceId", "environment", "true", "false"}
WORDS = {"param", "var", "resource", "output", "for", "in", "string", "bool", "int", "object", "array"}


def code(text):
    """Without comments, with nothing of a string but what it interpolates."""
    text = re.sub(r"(?m)^\s*//.*$", "", text)
    text = re.sub(r"\s//\s.*$", "", text, flags=re.M)

    def inside(match):
        return "'" + " ".join(f"${{{each}}}" for each in re.findall(r"\$\{(.+?)\}(?=[^}]|$)", match[0])) + "'"

    text = re.sub(r"(for \w+ in \w+):", r"\1 :", text)
    return re.sub(r"'(?:[^'\\]|\\.)*'", inside, text)


CODE = code(TEXT)
DECLARED = {kind: re.findall(rf"(?m)^{kind} (\w+)", CODE) for kind in ("param", "var", "resource", "output")}


# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
BUILT_IN = {
    "acrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",  # AcrPull
    "acrPush": "8311e382-0749-4cb8-b61a-304f252e45ec",  # AcrPush
    "blobContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",  # Storage Blob Data Contributor
    "blobReader": "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",  # Storage Blob Data Reader
    # Azure Kubernetes Service RBAC Cluster Admin
    "clusterAdministrator": "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b",
    "dataScientist": "f6c7c914-8db3-469d-8ca1-694a8f32e121",  # AzureML Data Scientist
    "networkContributor": "4d97b98b-1d4f-4787-a291-c67834d212e7",  # Network Contributor
}


@cache
def parsed():
    return pycep.BicepParser().parse(text=TEXT)


def resources():
    """Name, type and body of each, of a loop the body that it repeats."""
    for name, found in parsed()["resources"].items():
        body = found["config"]
        yield name, found["type"], body["config"] if "loop_type" in body else body


def roles_of_ours():
    for name, kind, body in resources():
        if kind == "Microsoft.Authorization/roleDefinitions":
            (granted,) = body["properties"]["permissions"]
            yield name, granted


def test_the_grammar_takes_it():
    found = parsed()
    assert {
        "param": list(found["parameters"]),
        "var": list(found["variables"]),
        "resource": list(found["resources"]),
        "output": list(found["outputs"]),
    } == DECLARED


def test_no_name_is_declared_twice():
    names = DECLARED["param"] + DECLARED["var"] + DECLARED["resource"]
    assert len(names) == len(set(names)) > 40


def test_every_name_that_is_used_is_declared():
    loops = set(re.findall(r"for (\w+) in", CODE))
    known = set(DECLARED["param"] + DECLARED["var"] + DECLARED["resource"]) | loops | GIVEN | WORDS
    body = re.sub(r"(?m)^(?:output|param|@)\S* ?\w*", "", CODE)
    # Neither a property (a.b) nor a key (b:); the arms of no condition are used here.
    used = set(re.findall(r"(?<![\w.'@])([A-Za-z]\w*)(?!\w*:)\b", body))
    assert used - known - set(DECLARED["output"]) == set()


@pytest.mark.parametrize("name", DECLARED["param"] + DECLARED["var"])
def test_every_parameter_is_used(name):
    assert len(re.findall(rf"(?<!\.)\b{name}\b(?!:)", CODE)) >= 2


def test_every_resource_has_a_version_that_is_not_a_preview():
    versions = {}
    for found in parsed()["resources"].values():
        assert re.fullmatch(r"Microsoft\.\w+(/\w+)+", found["type"])
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", found["api_version"]), found["type"]
        service = found["type"].partition("/")[0]
        if service != "Microsoft.Network":  # its zones have versions of their own
            assert versions.setdefault(service, found["api_version"]) == found["api_version"], service


def test_a_child_has_its_parent_and_what_is_assigned_a_scope():
    kinds = {name: kind for name, kind, _ in resources()}
    for name, kind, body in resources():
        if kind == "Microsoft.Authorization/roleAssignments":
            scope = body["scope"]
            if not isinstance(scope, str):  # one of a loop
                scope = scope["operator"]["operands"]["operand_1"]
            assert scope in kinds, name
            assert body["properties"]["principalType"] in ("ServicePrincipal", "Group")
        elif kind.count("/") > 1:
            assert kinds[body["parent"]] == kind.rpartition("/")[0], name
        else:
            assert "parent" not in body


def test_nothing_is_open_that_need_not_be():
    assert TEXT.count("allowBlobPublicAccess: false") == TEXT.count("'Microsoft.Storage/storageAccounts@")
    assert "allowSharedKeyAccess: true" not in TEXT
    assert "adminUserEnabled: false" in TEXT
    assert "disableLocalAccounts: true" in TEXT
    assert not re.search(r"listKeys|listSecrets|publicNetworkAccess: 'Enabled'", TEXT)
    assert "publicAccess: 'None'" in TEXT


def test_roles_that_we_define_name_no_wildcard_on_data_and_no_right_to_change_rights():
    granted = dict(roles_of_ours())
    assert set(granted) == {"runs", "sends", "signs"}
    for rights in granted.values():
        assert set(rights) <= {"actions", "dataActions"}
        for action in rights.get("actions", []) + rights.get("dataActions", []):
            assert action.startswith("Microsoft.")
            assert "Authorization" not in action
            assert "*" not in action.removesuffix("/*")
        for action in rights.get("dataActions", []):
            assert "*" not in action
            assert "delete" not in action
    assert {re.search(r"keys/(\w+)", action)[1] for action in granted["signs"]["dataActions"]} == {
        "read",
        "sign",
    }


def test_roles_of_azure_are_named_by_their_ids_and_used():
    assert parsed()["variables"]["roles"]["value"] == BUILT_IN
    for name in BUILT_IN:
        assert f"roles.{name}" in TEXT


def test_the_settings_that_it_hands_out_are_settings_of_ours(monkeypatch, tmp_path):
    (block,) = re.findall(r"(?ms)^output settings object = \{\n(.*?)^\}", TEXT)
    found = dict(re.findall(r"^  (\w+): (.+)$", block, flags=re.M))
    made = {
        "lake.name": "edgeai",
        "environment().suffixes.storage": "core.windows.net",
        "registry.properties.loginServer": "edgeai.azurecr.io",
        "repository": "edge/releases",
        "subscription().subscriptionId": "00000000-0000-0000-0000-000000000001",
        "resourceGroup().name": "edge-ai",
    }
    for name, expression in found.items():
        value = expression.strip("'") if expression.startswith("'") else made.get(expression, "some-name")
        monkeypatch.setenv(name, re.sub(r"\$\{(.+?)\}", lambda match: made[match[1]], value))
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path))
    azure = Settings.load().azure
    assert azure.storage.endpoint == "https://edgeai.blob.core.windows.net"
    assert azure.registry.repository == "edgeai.azurecr.io/edge/releases"
    assert azure.ingestion.pipeline == azure.training.compute == "some-name"


@pytest.mark.parametrize("name", DECLARED["output"])
def test_what_it_hands_out_is_used_by_the_guide(name):
    assert name in DOCS


def test_the_guide_says_what_each_resource_is_and_costs():
    kinds = set(re.findall(r"^resource \w+ '(Microsoft\.\w+/\w+)@", TEXT, flags=re.M))
    for kind in kinds - {
        "Microsoft.Authorization/roleAssignments",
        "Microsoft.Authorization/roleDefinitions",
    }:
        assert f"`{kind}`" in DOCS, kind
