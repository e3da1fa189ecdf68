"""The Bicep file, as far as it can be judged without its compiler: names, versions, rights, what it hands on.

The compiler cannot be had from a package index. That Azure takes the file is not shown here.
"""

from __future__ import annotations

import re
from pathlib import Path

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


def test_brackets_close_in_order():
    pairs, open_ = {"}": "{", "]": "[", ")": "("}, []
    for mark in re.sub(r"'[^']*'", "", CODE):
        if mark in "{[(":
            open_.append(mark)
        elif mark in pairs:
            assert open_
            assert open_.pop() == pairs[mark]
    assert not open_


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
    for kind, version in re.findall(r"^resource \w+ '([^'@]+)@([^']+)' = ", TEXT, flags=re.M):
        assert re.fullmatch(r"Microsoft\.\w+(/\w+)+", kind), kind
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", version), kind
    assert len(re.findall(r"^resource ", TEXT, flags=re.M)) == len(DECLARED["resource"])


def test_a_child_has_a_parent_and_what_is_assigned_a_scope():
    for block in re.split(r"(?m)^resource ", TEXT)[1:]:
        kind = re.match(r"\w+ '([^'@]+)@", block)[1]
        depth = kind.count("/")
        if kind.endswith("roleAssignments"):
            assert re.search(r"(?m)^  scope: \w+", block), block[:60]
            assert "principalType:" in block
        elif depth > 1:
            assert re.search(r"(?m)^ +parent: \w+", block), block[:60]


def test_nothing_is_open_that_need_not_be():
    assert TEXT.count("allowBlobPublicAccess: false") == TEXT.count("'Microsoft.Storage/storageAccounts@")
    assert "allowSharedKeyAccess: true" not in TEXT
    assert "adminUserEnabled: false" in TEXT
    assert "disableLocalAccounts: true" in TEXT
    assert not re.search(r"listKeys|listSecrets|publicNetworkAccess: 'Enabled'", TEXT)
    assert "publicAccess: 'None'" in TEXT


def test_roles_that_we_define_name_no_wildcard_on_data_and_no_right_to_change_rights():
    for actions in re.findall(r"(?:dataActions|actions): \[(.*?)\]", TEXT, flags=re.S):
        assert "Authorization" not in actions
        assert not re.search(r"'\*'|/\*/", actions)
    for actions in re.findall(r"dataActions: \[(.*?)\]", TEXT, flags=re.S):
        assert "*" not in actions
        assert "delete" not in actions
    (signs,) = re.findall(
        r"roleName: '\$\{name\}: signs releases'.*?dataActions: \[(.*?)\]", TEXT, flags=re.S
    )
    assert set(re.findall(r"keys/(\w+)", signs)) == {"read", "sign"}


def test_roles_of_azure_are_named_by_their_ids_and_used():
    ids = dict(re.findall(r"^  (\w+): '([0-9a-f-]{36})'$", TEXT, flags=re.M))
    assert len(set(ids.values())) == len(ids) > 5
    for name in ids:
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
