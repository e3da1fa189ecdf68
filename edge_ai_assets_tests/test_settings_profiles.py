"""The two profiles: files and environment, what is refused and in which words, and that no secret shows."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edge_ai_assets.profile_values import Address, Container, Credential, Entra, Secret
from edge_ai_assets.settings import Settings
from edge_ai_assets.settings_errors import SettingsError

CANARY = "c4n4ry-sig%3Dsecret"
ID = "01234567-89ab-cdef-0123-456789abcdef"
AZURE = """
[storage]
endpoint = "https://acct.blob.core.windows.net/"
credential = { entra = "default" }
"""
HUB = """
[uplink]
endpoint = "https://acct.blob.core.windows.net"
credential = { sas = { env = "CLOUD_SAS" } }
[queue]
queues = "https://hub.queue.region.hub.example"
blobs = "https://hub.blob.region.hub.example"
credential = { key = { file = "/run/secrets/hub" } }
"""


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [name for name in os.environ if name.startswith("EDGE_AI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path))
    return tmp_path


def refused(**given: object) -> str:
    with pytest.raises(SettingsError) as raised:
        Settings.load(**given)
    return str(raised.value)


def test_without_files_and_variables_all_is_embedded(home):
    found = Settings.load()
    assert set(found.azure.model_dump().values()) == set(found.stack_hub.model_dump().values()) == {None}


def test_files_say_what_is_real(home):
    (home / "azure.toml").write_text(AZURE)
    (home / "stack_hub.toml").write_text(HUB)
    found = Settings.load()
    assert found.azure.storage.endpoint == "https://acct.blob.core.windows.net"
    assert found.azure.storage.credential == Credential(entra=Entra())
    assert (found.azure.storage.lake, found.azure.storage.site) == ("lake", "$web")
    assert found.azure.training is found.azure.registry is found.stack_hub.registry is None
    assert found.stack_hub.uplink.credential.sas == Secret(env="CLOUD_SAS")
    assert found.stack_hub.queue.api_version == "2019-07-07"


def test_the_environment_comes_first_field_by_field(home, monkeypatch):
    (home / "azure.toml").write_text(AZURE)
    monkeypatch.setenv("EDGE_AI_AZURE__STORAGE__LAKE", "other")
    monkeypatch.setenv("EDGE_AI_AZURE__STORAGE__CREDENTIAL__ENTRA__CLIENT", ID)
    monkeypatch.setenv("EDGE_AI_AZURE__STORAGE__SITE", "")
    found = Settings.load().azure.storage
    assert (found.endpoint, found.lake) == ("https://acct.blob.core.windows.net", "other")
    assert found.site == "$web", "a variable that is set to nothing is not set"
    assert found.credential.entra.client == ID


def test_the_environment_alone_is_enough(monkeypatch):
    for name, value in {
        "UPLINK__ENDPOINT": "https://acct.blob.core.windows.net",
        "UPLINK__CREDENTIAL": '{"sas": {"env": "CLOUD_SAS"}}',
        "QUEUE__QUEUES": "http://127.0.0.1:10001/hub",
        "QUEUE__BLOBS": "http://127.0.0.1:10000/hub",
        "QUEUE__CREDENTIAL__KEY__ENV": "HUB_KEY",
    }.items():
        monkeypatch.setenv(f"EDGE_AI_STACK_HUB__{name}", value)
    monkeypatch.setenv("EDGE_AI_AZURE__STORAGE__ENDPOINT", "https://acct.blob.core.windows.net")
    monkeypatch.setenv("EDGE_AI_AZURE__STORAGE__CREDENTIAL__ENTRA", "default")
    found = Settings.load()
    assert found.stack_hub.uplink.credential.sas.env == "CLOUD_SAS"
    assert found.stack_hub.queue.credential.key.env == "HUB_KEY"
    assert found.azure.storage.credential.entra == Entra()


def test_a_home_that_is_given_has_its_own_files(home, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (home / "azure.toml").write_text("[nonsense]")
    (other / "azure.toml").write_text(AZURE)
    assert Settings.load(home=other).azure.storage is not None
    assert f"{home}/azure.toml: [nonsense] is not known" in refused()


MISTAKES = {
    'endpont = "https://a.example"': "[storage] endpont is not known: did you mean 'endpoint'?",
    "colour = 1": "[storage] colour is not known: known are endpoint, credential, ca, lake",
    "lake = 3": "[storage] lake must be a container's name: 3 to 63 lower-case letters, digits and single "
    "hyphens; it is a whole number",
    'lake = "Lake"': "[storage] lake must be a container's name: 3 to 63",
    "ca = true": "[storage] ca must be a path of a PEM file; it is true or false",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence(home, line):
    (home / "azure.toml").write_text(f"{AZURE}{line}\n")
    said = refused()
    assert said.startswith(f"{home}/azure.toml: {MISTAKES[line]}") and "\n" not in said


CREDENTIALS = {
    "{}": "credential must have exactly one of key, sas, entra and adfs",
    '{ key = { env = "A" }, sas = { env = "B" } }': "credential must have exactly one of key, sas, entra and "
    "adfs, it has 2",
    '{ sas = { env = "A" }, account = "a" }': "credential account goes with key alone",
    '{ sas = { env = "A", file = "b" } }': "credential.sas must say where the secret is, by exactly one of",
    '{ sas = { env = "not a name" } }': "credential.sas.env must be an environment variable's name",
    '{ sas = { vault = "https://v.vault.azure.net/keys/x" } }': "credential.sas.vault must be the address of",
    '{ entra = "none" }': 'credential.entra must be "default"',
    '{ entra = { tenant = "t" } }': 'credential.entra must be "default"',
    '{ adfs = { client = "c" } }': "credential.adfs.authority is missing: it must be an https address",
    '"key"': "credential must be a table with key, account, sas, entra, adfs; it is text of 3 characters",
}


@pytest.mark.parametrize("given", CREDENTIALS)
def test_a_credential_that_is_none(home, given):
    (home / "stack_hub.toml").write_text(f'[uplink]\nendpoint = "https://a.example"\ncredential = {given}\n')
    assert f"{home}/stack_hub.toml: [uplink] {CREDENTIALS[given]}" in refused()


def test_all_mistakes_are_said_at_once(home, monkeypatch):
    (home / "azure.toml").write_text("[storage]\nlake = 1\n[trainig]\n")
    (home / "stack_hub.toml").write_text("[queue]\n")
    monkeypatch.setenv("EDGE_AI_STACK_HUB__QUEUE__NOTES", "!")
    monkeypatch.setenv("EDGE_AI_AZURE__INGESTION__PARAMETERS", "window")
    said = refused().splitlines()
    for line in (
        f"{home}/azure.toml: [storage] endpoint is missing: it must be an https address",
        f"{home}/azure.toml: [storage] lake must be",
        f"{home}/azure.toml: [trainig] is not known: did you mean 'training'?",
        f"{home}/stack_hub.toml: [queue] credential is missing: it must be a table with key,",
        "environment variable EDGE_AI_STACK_HUB__QUEUE__NOTES must be a container's name",
        "environment variable EDGE_AI_AZURE__INGESTION__PARAMETERS must be a table; it is text",
    ):
        assert any(each.startswith(line) for each in said), line


def test_what_goes_together_is_checked_across_sections(home):
    (home / "azure.toml").write_text('[features]\nengine = "spark-azureml"\n')
    assert 'azure.toml: [features] engine "spark-azureml" needs [training]' in refused()
    names = 'resource_group = "g"\nworkspace = "w"\ncompute = "c"\n'
    (home / "azure.toml").write_text(f'[training]\nsubscription = "{ID}"\n{names}')
    assert f"{home}/azure.toml: [training] needs [storage]: jobs read the lake" in refused()
    (home / "azure.toml").write_text(f'{AZURE}[training]\nsubscription = "{ID}"\n{names}')
    assert Settings.load().azure.training.datastore == "lake"
    (home / "azure.toml").write_text('[features]\nengine = "spark-livy"\n')
    assert '[features] engine "spark-livy" needs endpoint' in refused()
    (home / "azure.toml").write_text('[features]\nengine = "spark-livy"\nendpoint = "https://l.example"\n')
    assert '[features] engine "spark-livy" needs [storage]' in refused()
    (home / "azure.toml").write_text('[features]\nengine = "pandas"\n')
    assert 'must be "duckdb", "spark-azureml" or "spark-livy"; it is text of 6' in refused()


@pytest.mark.parametrize(
    "name", ["STACKHUB__UPLINK__CONTAINER", "STACK_HUB_UPLINK__CONTAINER", "STACK_HUB_UPLINK"]
)
def test_a_variable_of_no_profile_is_refused(monkeypatch, name):
    monkeypatch.setenv(f"EDGE_AI_{name}", "uplink")
    assert f"EDGE_AI_{name} is no setting: EDGE_AI_STACK_HUB__… maybe" in refused()


@pytest.mark.parametrize("content", [b"[storage", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml(home, content):
    (home / "azure.toml").write_bytes(content)
    assert f"{home}/azure.toml is no TOML: " in refused()


@pytest.mark.parametrize("change", [str.encode, lambda text: text.replace("\n", "\r\n").encode("utf-8-sig")])
def test_a_file_may_come_from_windows(home, change):
    (home / "azure.toml").write_bytes(change(AZURE))
    assert Settings.load().azure.storage.lake == "lake"


def test_a_link_that_leads_nowhere_is_not_taken_for_no_file(home):
    """What was to be mounted is missing: the services must not silently become the embedded ones."""
    (home / "azure.toml").symlink_to(home / "mounted" / "azure.toml")
    assert f"{home}/azure.toml cannot be read: No such file" in refused()
    (home / "mounted").mkdir()
    (home / "mounted" / "azure.toml").write_text(AZURE)
    assert Settings.load().azure.storage is not None


@given(st.text())
def test_an_address_that_is_taken_shows_no_signature(text):
    try:
        found = TypeAdapter(Address).validate_python(f"https://{text}")
    except ValidationError:
        return
    assert not set("?#@ ") & set(found)


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        ("https://a.example", True),
        ("http://127.0.0.1:10000/acct", True),
        ("http://localhost:10000/acct", True),
        ("http://[::1]:10000", True),
        ("http://a.example", False),
        ("https://a.example?sig=x", False),
        ("https://me:word@a.example", False),
        ("https://a.example:port", False),
        ("https://", False),
        ("a.example", False),
    ],
)
def test_addresses(given, fine):
    try:
        TypeAdapter(Address).validate_python(given)
    except ValidationError:
        assert not fine
    else:
        assert fine


@given(st.from_regex(r"[a-z0-9-]{1,65}", fullmatch=True))
def test_container_names_are_those_of_azure(name):
    """Source: Naming and Referencing Containers, Blobs, and Metadata (REST API of Azure Storage)."""
    legal = 3 <= len(name) <= 63 and "--" not in name and name[0] != "-" and name[-1] != "-"
    try:
        TypeAdapter(Container).validate_python(name)
    except ValidationError:
        assert not legal
    else:
        assert legal


PLANTED = [
    f'[storage]\nendpoint = "https://a.example"\ncredential = {{ sas = "{CANARY}" }}',
    f'[storage]\nendpoint = "https://a.example"\ncredential = {{ sas = {{ env = "{CANARY}" }} }}',
    f'[storage]\nendpoint = "https://a.example?{CANARY}"\ncredential = {{ entra = "default" }}',
    f'[storage]\nendpoint = "https://a.example"\ncredential = "{CANARY}"',
    f'[storage]\nendpoint = "https://a.example"\ncredential = {{ entra = "{CANARY}" }}',
    f'[storage]\nlake = "{CANARY}"',
    f'[registry]\nrepository = "{CANARY}"\ntoken = ["{CANARY}"]',
    f'[features]\nengine = "{CANARY}"',
    f'[storage]\nlake = "{CANARY}',
]


@pytest.mark.parametrize("text", PLANTED)
def test_no_error_shows_what_was_given(home, text, caplog):
    (home / "azure.toml").write_text(text)
    with caplog.at_level(logging.DEBUG), pytest.raises(SettingsError) as raised:
        Settings.load()
    assert CANARY not in "".join(traceback.format_exception(raised.value)) + caplog.text


@pytest.mark.parametrize("name", ["STORAGE__CREDENTIAL__SAS", "STORAGE__CREDENTIAL", "INGESTION__PARAMETERS"])
def test_no_error_shows_what_a_variable_holds(monkeypatch, name):
    monkeypatch.setenv(f"EDGE_AI_AZURE__{name}", CANARY)
    with pytest.raises(SettingsError) as raised:
        Settings.load()
    assert CANARY not in "".join(traceback.format_exception(raised.value))


def test_settings_load_without_any_of_azure_s_clients(home):
    (home / "azure.toml").write_text(AZURE)
    (home / "stack_hub.toml").write_text(HUB)
    code = (
        "import sys; from edge_ai_assets.settings import Settings; Settings.load(); "
        "from edge_ai_assets.resources import configured; from edge_ai_assets.stack_hub import far_ends; "
        "print([name for name in sys.modules if name.startswith(('azure', 'dagster', 'kubernetes'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("mebibytes", [0, 65, 1.5])
def test_what_is_under_way_is_bounded(home, mebibytes):
    (home / "stack_hub.toml").write_text(HUB)
    assert Settings.load().stack_hub.uplink.mebibytes_under_way == 1
    line = f"mebibytes_under_way = {mebibytes}"
    (home / "stack_hub.toml").write_text(HUB.replace("[queue]", f"{line}\n[queue]"))
    assert "[uplink] mebibytes_under_way must be a whole number from 1 to 64; it is" in refused()
