"""From settings to what Azure's clients take; with AD FS nobody but AD FS is asked; secrets stay secret."""

from __future__ import annotations

import json
import logging
import socket
import traceback
from urllib.parse import parse_qs, unquote

import pytest

from edge_ai_assets.profile_values import AdFs, Credential, Entra, Secret
from edge_ai_assets.profiles import StackHubProfile
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.identity import credentials
from edge_ai_assets.resources.identity.secret import MAX_BYTES, SecretError, reveal
from edge_ai_assets.resources.storage.account import HUB_API_VERSION
from edge_ai_assets.resources.uplink import blob_uplink
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets_tests.contract.tls_server import Answer, Request, serving

pytest.importorskip("azure.identity", reason="the extra with Azure's clients")
CANARY = "Y2FuYXJ5IHNlY3JldA=="


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Secret:
    monkeypatch.setenv("A_SECRET", CANARY)
    return Secret(env="A_SECRET")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that were looked up; none but this machine is."""
    hosts: list[str] = []
    resolve = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        hosts.append(host)
        if host not in ("localhost", "127.0.0.1"):
            raise socket.gaierror(-2, "not in this test")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return hosts


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("https://acct.blob.core.windows.net", "acct"),
        ("https://acct.blob.region.hub.example", "acct"),
        ("https://acct.queue.core.usgovcloudapi.net:443", "acct"),
        ("http://127.0.0.1:10000/devstore", "devstore"),
        ("http://localhost:10000/devstore/", "devstore"),
    ],
)
def test_a_key_is_the_account_s_whose_endpoint_it_is(secret, endpoint, name):
    found = credentials.credential(Credential(key=secret), endpoint)
    assert (found.named_key.name, found.named_key.key) == (name, CANARY)
    named = credentials.credential(Credential(key=secret, account="other"), endpoint)
    assert named.named_key.name == "other"


def test_a_signature_may_begin_as_the_portal_shows_it(monkeypatch):
    monkeypatch.setenv("A_SECRET", "?sv=2019-07-07&sig=x")
    found = credentials.credential(Credential(sas=Secret(env="A_SECRET")), "https://a.example")
    assert found.signature == "sv=2019-07-07&sig=x"


def test_entra_is_the_machine_s_identity_or_an_application(secret):
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    client = "01234567-89ab-cdef-0123-456789abcdef"
    assert isinstance(credentials.entra(Entra()), DefaultAzureCredential)
    ours = credentials.entra(Entra(client=client))
    assert isinstance(ours, DefaultAzureCredential)
    application = Entra(tenant="t", client=client, secret=secret)
    assert isinstance(credentials.entra(application), ClientSecretCredential)


def adfs(request: Request) -> Answer:
    """Contract stub of AD FS. Source: [MS-OIDCE] 3.2.5 (openid configuration), RFC 6749, 4.4.3 (token)."""
    origin = f"https://{request.headers['host']}"
    if request.path.startswith("/adfs/.well-known/openid-configuration"):
        return Answer(
            body=json.dumps(
                {
                    "issuer": f"{origin}/adfs",
                    "authorization_endpoint": f"{origin}/adfs/oauth2/authorize",
                    "token_endpoint": f"{origin}/adfs/oauth2/token",
                    "tenant_discovery_endpoint": f"{origin}/adfs/.well-known/openid-configuration",
                }
            ).encode(),
            headers={"Content-Type": "application/json"},
        )
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    if request.path == "/adfs/oauth2/token" and form.get("client_secret") == CANARY:
        body = {"access_token": "of-adfs", "token_type": "Bearer", "expires_in": 3600}
        return Answer(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    return Answer(401, {"Content-Type": "application/json"}, b'{"error": "invalid_client"}')


def test_with_adfs_nobody_else_is_asked(secret, tmp_path, called):
    with serving(tmp_path, adfs) as server:
        given = AdFs(authority=server.endpoint, client="app", secret=secret)
        token = credentials.adfs(given, server.ca).get_token("https://storage.azure.com/.default")
        assert token.token == "of-adfs"
        assert set(called) == {"localhost"}, "a public login service was asked"
        (asked,) = [one for one in server.asked if one.method == "POST"]
        form = parse_qs(asked.body.decode())
        assert form["client_id"] == ["app"] and "storage.azure.com" in form["scope"][0]


def test_a_hub_s_audience_takes_the_place_of_the_public_one(secret, tmp_path, called):
    with serving(tmp_path, adfs) as server:
        audience = "https://storage.adfs.hub.example/0123"
        given = AdFs(authority=server.endpoint, client="app", secret=secret, audience=audience)
        found = credentials.adfs(given, server.ca)
        found.get_token("https://storage.azure.com/.default", tenant_id="other")
        (asked,) = [one for one in server.asked if one.method == "POST"]
        assert parse_qs(asked.body.decode())["scope"][0].split()[0] == f"{audience}/.default"
        assert set(called) == {"localhost"}


def test_a_hub_with_adfs_and_a_private_authority(secret, tmp_path, called, monkeypatch):
    """The whole way: settings, token, a queue of the hub over TLS of its own authority, in its version."""

    def answer(request: Request) -> Answer:
        if request.path.startswith("/adfs"):
            return adfs(request)
        assert request.headers["authorization"] == "Bearer of-adfs"
        return Answer(headers={"x-ms-request-id": "1", "x-ms-approximate-messages-count": "7"})

    with serving(tmp_path, answer) as server:
        who = {"adfs": {"authority": server.endpoint, "client": "app", "secret": {"env": "A_SECRET"}}}
        section = {
            "queues": server.endpoint,
            "blobs": server.endpoint,
            "credential": who,
            "ca": str(server.ca),
        }
        hub = configured.hub(StackHubProfile.model_validate({"queue": section}))
        assert hub is not None and hub.letters.count() == 7
        versions = {one.headers["x-ms-version"] for one in server.asked if "x-ms-version" in one.headers}
        assert versions == {HUB_API_VERSION} and set(called) == {"localhost"}


def test_where_secrets_come_from(tmp_path, monkeypatch):
    (tmp_path / "key").write_text(f"{CANARY}\n")
    assert reveal(Secret(file=str(tmp_path / "key"))) == CANARY
    (tmp_path / "key").write_bytes(f"{CANARY}\r\n".encode())
    assert reveal(Secret(file=str(tmp_path / "key"))) == CANARY


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"\xff\xfe", "is no UTF-8 text"),
        (b"x" * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes"),
    ],
)
def test_a_secret_that_cannot_be_fetched_is_named(tmp_path, content, said):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecretError, match=f"{path}.*{said}"):
        reveal(Secret(file=str(path)))
    with pytest.raises(SecretError, match=r"the environment variable NOT_SET, .* is not set: set it"):
        reveal(Secret(env="NOT_SET"))


def test_a_vault_is_asked_as_the_machine_s_own_identity(monkeypatch):
    from azure.core.exceptions import ResourceNotFoundError
    from azure.keyvault import secrets

    asked = []

    class Vault:
        def __init__(self, address, credential, **options):
            asked.append((address, type(credential).__name__, options["retry_total"]))

        def __enter__(self):
            return self

        def __exit__(self, *_): ...

        def get_secret(self, name, version):
            if name == "gone":
                raise ResourceNotFoundError(f"{CANARY} is not for you")
            return type("Found", (), {"value": f"{name}/{version}"})

    monkeypatch.setattr(secrets, "SecretClient", Vault)
    assert reveal(Secret(vault="https://v.vault.azure.net/secrets/hub/7")) == "hub/7"
    assert asked == [("https://v.vault.azure.net", "DefaultAzureCredential", 1)]
    with pytest.raises(
        SecretError, match=r"secrets/gone cannot be fetched \(Resource.*identity may"
    ) as raised:
        reveal(Secret(vault="https://v.vault.azure.net/secrets/gone"))
    assert CANARY not in "".join(traceback.format_exception(raised.value))


def test_no_secret_shows_in_what_is_made_of_settings(monkeypatch, secret, tmp_path, caplog):
    monkeypatch.setenv("A_SIGNATURE", f"sv=2021-12-02&sr=c&sig={CANARY}")

    def busy(_: Request) -> Answer:
        return Answer(503, {"x-ms-request-id": "1", "x-ms-error-code": "ServerBusy"})

    with serving(tmp_path, busy) as server, caplog.at_level(logging.DEBUG):
        section = {"endpoint": server.endpoint, "credential": {"sas": {"env": "A_SIGNATURE"}}}
        profile = StackHubProfile.model_validate({"uplink": {**section, "ca": str(server.ca)}})
        road, account = configured.uplink(profile, "bergen"), configured.uplink_account(profile)
        with pytest.raises(LinkDown, match="too busy") as raised:
            road.probe()
        assert CANARY in unquote(server.asked[0].path), "it is sent"
    application = Entra(tenant="t", client="01234567-89ab-cdef-0123-456789abcdef", secret=secret)
    shown = [repr(each) for each in (profile, account, road, credentials.entra(application))]
    shown += [str(profile), profile.model_dump_json(), road.destination, caplog.text]
    shown += ["".join(traceback.format_exception(raised.value))]
    assert "sig=REDACTED" in caplog.text
    assert not [each for each in shown if CANARY.rstrip("=") in unquote(each)]


def test_what_is_no_signature_is_not_sent_as_one(secret):
    with pytest.raises(SecretError, match=r"A_SECRET.* no shared access signature") as raised:
        credentials.credential(Credential(sas=secret), "https://a.example")
    assert CANARY not in "".join(traceback.format_exception(raised.value))


def test_a_renewed_secret_is_taken_up(monkeypatch, tmp_path):
    section = {"endpoint": "https://a.example", "credential": {"sas": {"env": "A_SECRET"}}}
    profile = StackHubProfile.model_validate({"uplink": section})
    clock = [1_000.0]
    monkeypatch.setattr(configured.time, "monotonic", lambda: clock[0])
    seen = []
    for value, at in (("one", 0), ("two", 1), ("two", configured.RENEW_SECONDS + 1)):
        monkeypatch.setenv("A_SECRET", f"sig={value}")
        clock[0] = 10 * configured.RENEW_SECONDS + at
        seen.append(configured.uplink_account(profile).credential.signature)
    assert seen == ["sig=one", "sig=one", "sig=two"]


def test_what_is_under_way_is_the_setting_s(secret):
    section = {"endpoint": "https://a.example", "credential": {"key": {"env": "A_SECRET"}}}
    profile = StackHubProfile.model_validate({"uplink": {**section, "mebibytes_under_way": 8}})
    assert configured.uplink(profile, "bergen").small == 8 * 2**20 // blob_uplink.COST
