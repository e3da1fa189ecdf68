"""Each injected misconfiguration gets its own cause, and one line that says what to do.

The servers are contract stubs; what a real storage server says is in integration/test_azurite_doctor.py.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edge_ai_assets.commands import doctor
from edge_ai_assets.doctor import causes, examine, finding, here, services, storage
from edge_ai_assets.doctor.finding import AWAY, WORDS, Cause, Finding, State
from edge_ai_assets.profiles import AzureProfile, Features, StackHubProfile
from edge_ai_assets.resources import configured
from edge_ai_assets.runtimes import choice
from edge_ai_assets.runtimes.cluster import ClusterError, Unreachable
from edge_ai_assets.settings import Settings
from edge_ai_assets_tests.contract import acr
from edge_ai_assets_tests.contract.tls_server import Answer, Request, Server, serving

pytest.importorskip("azure.storage.queue", reason="the extra with Azure's clients")
KEY = "a2V5"
EXPIRED, ENDLESS = "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"
ID = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("EDGE_AI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("A_KEY", KEY)
    for kept in (configured._storage, configured._uplink, configured._hub):
        kept.cache_clear()  # of what another test had for a secret
    monkeypatch.setattr(storage, "CONNECT_SECONDS", 0.7)
    monkeypatch.setattr(storage, "READ_SECONDS", 15.0)
    monkeypatch.setattr(services, "SECONDS", (0.7, 15.0))
    yield
    logging.getLogger("azure.identity").setLevel(logging.NOTSET)


def uplink(endpoint: str, **section: object) -> Finding:
    given = {"endpoint": endpoint, "credential": {"key": {"env": "A_KEY"}}, **section}
    return storage.uplink(StackHubProfile.model_validate({"uplink": given}))


def storage_says(status: int, code: str = "", message: str = "") -> Callable[[Request], Answer]:
    """An answer of Azure Storage. Source: Status and Error Codes (REST API of Azure Storage)."""
    headers = {"x-ms-request-id": "1"} | ({"x-ms-error-code": code} if code else {})
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>No.</Message>{message}</Error>'
    xml = {"Content-Type": "application/xml"}
    return lambda _: Answer(status, headers | xml, body.encode() if code else b"")


def fine(request: Request) -> Answer:
    if request.method == "HEAD":
        return storage_says(404, "BlobNotFound")(request)
    return storage_says(201)(request)


def test_all_is_fine_and_the_very_place_is_asked(tmp_path):
    with serving(tmp_path, fine) as server:
        found = uplink(server.endpoint, ca=str(server.ca), container="uplink")
        assert (found.cause, found.state, found.said) == (None, State.FINE, "answers, 2 calls")
        assert [(one.method, one.path.split("?")[0]) for one in server.asked] == [
            ("PUT", "/uplink/.doctor"),
            ("HEAD", "/uplink/.doctor"),
        ]
        assert "comp=block" in server.asked[0].path, "nothing that anybody sees is made"


def test_a_name_that_nobody_knows():
    found = uplink("https://nobody.invalid")
    assert found.cause is Cause.NAME and "nobody.invalid" in found.said


def test_nobody_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert uplink(f"https://127.0.0.1:{closed.getsockname()[1]}").cause is Cause.REFUSED


@contextmanager
def black_hole() -> Iterator[str]:
    """Packets to it are lost: its queue of connections is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield f"https://127.0.0.1:{server.getsockname()[1]}"
        for one in waiting:
            one.close()


@contextmanager
def silence() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def hanging_up() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                client.recv(65536)
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("place", "cause"), [(black_hole, Cause.TIMEOUT), (silence, Cause.TIMEOUT), (hanging_up, Cause.CLOSED)]
)
def test_no_answer(place, cause, monkeypatch):
    monkeypatch.setattr(storage, "READ_SECONDS", 0.7)
    with place() as endpoint:
        began = time.monotonic()
        found = uplink(endpoint)
    assert found.cause is cause and found.state is State.UNREACHABLE
    assert time.monotonic() - began < 20  # the clients' own patience is minutes


def test_a_certificate_of_an_authority_nobody_knows(tmp_path):
    with serving(tmp_path, fine) as server:
        found = uplink(server.endpoint)
    assert found.cause is Cause.UNTRUSTED and "set `ca`" in found.said


def test_a_certificate_of_another_host(tmp_path):
    with serving(tmp_path, fine, names=("elsewhere.example",)) as server:
        found = uplink(server.endpoint, ca=str(server.ca))
    assert found.cause is Cause.WRONG_HOST and "elsewhere" not in found.where


def test_a_certificate_that_has_ended(tmp_path):
    with serving(tmp_path, fine, until=datetime.now(UTC) - timedelta(days=1)) as server:
        found = uplink(server.endpoint, ca=str(server.ca))
    assert found.cause is Cause.CERTIFICATE and "renew it" in found.said


def test_a_server_without_tls():
    with serving_plain() as port:
        assert uplink(f"https://127.0.0.1:{port}").cause in (Cause.OTHER, Cause.CLOSED)


@contextmanager
def serving_plain() -> Iterator[int]:
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


FORBIDDEN = "AuthenticationFailed"
MISMATCH = "AuthorizationPermissionMismatch"
VERSION = "<HeaderName>x-ms-version</HeaderName><HeaderValue>2026-01-01</HeaderValue>"
ANSWERS = {
    "wrong key": (storage_says(403, FORBIDDEN), 0, Cause.CREDENTIAL, "not replaced"),
    "clock behind": (storage_says(403, FORBIDDEN), 7200, Cause.CLOCK, "120 minutes behind the service's"),
    "clock ahead": (storage_says(403, FORBIDDEN), -7200, Cause.CLOCK, "120 minutes ahead of the service's"),
    "clock, still taken": (fine, 600, Cause.CLOCK, "10 minutes behind"),
    "no permission": (storage_says(403, MISMATCH), 0, Cause.PERMISSION, "give it the rights"),
    "version": (
        storage_says(400, "InvalidHeaderValue", VERSION),
        0,
        Cause.VERSION,
        "2019-07-07 for an Azure",
    ),
    "container": (storage_says(404, "ContainerNotFound"), 0, Cause.MISSING, "create it"),
    "busy": (storage_says(503, "ServerBusy"), 0, Cause.BUSY, "503 ServerBusy"),
    "portal": (lambda _: Answer(200, {"Content-Type": "text/html"}, b"<html>"), 0, Cause.OTHER, "a portal"),
    "proxy": (lambda _: Answer(403, {}, b"<html>"), 0, Cause.OTHER, "a proxy"),
    "moved": (lambda _: Answer(302, {"Location": "/login"}), 0, Cause.OTHER, "302"),
    "not there": (lambda _: Answer(404, {}, b"nginx"), 0, Cause.OTHER, "something else"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_storage_answers(tmp_path, case):
    answer, ahead, cause, said = ANSWERS[case]
    with serving(tmp_path, answer, ahead=ahead) as server:
        found = uplink(server.endpoint, ca=str(server.ca))
    assert (found.cause, said in found.said) == (cause, True), found.said
    assert "\n" not in found.said


@pytest.mark.parametrize(
    ("expiry", "cause"), [(EXPIRED, Cause.EXPIRED), (ENDLESS, Cause.CREDENTIAL), ("?", Cause.CREDENTIAL)]
)
def test_a_signature_that_has_expired(tmp_path, monkeypatch, expiry, cause):
    monkeypatch.setenv("A_SAS", f"sv=2021-12-02&se={expiry}&sp=rcw&sig=x")
    with serving(tmp_path, storage_says(403, FORBIDDEN)) as server:
        found = uplink(server.endpoint, ca=str(server.ca), credential={"sas": {"env": "A_SAS"}})
    assert found.cause is cause and ("2020-01-01" in found.said) == (cause is Cause.EXPIRED)


@pytest.mark.parametrize("secret", [{"env": "NOT_SET"}, {"file": "/run/secrets/absent"}])
def test_a_secret_that_is_not_there(secret):
    found = uplink("https://a.example", credential={"key": secret})
    assert found.cause is Cause.SECRET and next(iter(secret.values())) in found.said


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\xfe"])
def test_certificates_that_are_none(tmp_path, monkeypatch, content):
    """Of any service: it is not out of reach, and nobody refused us."""
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    for service in ("AZURE__STORAGE__ENDPOINT", "STACK_HUB__QUEUE__QUEUES", "STACK_HUB__QUEUE__BLOBS"):
        section = f"EDGE_AI_{service.rpartition('__')[0]}"
        monkeypatch.setenv(f"EDGE_AI_{service}", "https://nobody.invalid")
        monkeypatch.setenv(f"{section}__CREDENTIAL__KEY__ENV", "A_KEY")
        monkeypatch.setenv(f"{section}__CA", str(ca))
    monkeypatch.setenv("EDGE_AI_STACK_HUB__REGISTRY__REPOSITORY", "nobody.invalid/a/b")
    monkeypatch.setenv("EDGE_AI_STACK_HUB__REGISTRY__CA", str(ca))
    found = [each for each in examine.examine(examine.checks(Settings.load())) if "." in each.service]
    assert [each.service for each in found] == ["azure.storage", "stack_hub.registry", "stack_hub.queue"]
    for each in found:
        assert each.cause is Cause.SETTINGS and str(ca) in each.where and "`ca`" in each.said, each


def test_an_error_that_nobody_thought_of_hides_no_other_service(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:canary@")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = uplink("https://acct.example")
    assert found.cause is Cause.OTHER and "canary" not in repr(found)


def proxied(answer: bytes) -> Callable[[], AbstractContextManager[int]]:
    @contextmanager
    def serve() -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def one() -> None:
                client, _ = server.accept()
                with client:
                    client.recv(65536)
                    client.sendall(answer)

            threading.Thread(target=one, daemon=True).start()
            yield server.getsockname()[1]

    return serve


@pytest.mark.parametrize(
    ("place", "cause", "said"),
    [
        (lambda: nullcontext(9), Cause.REFUSED, "(the proxy 127.0.0.1)"),
        (
            proxied(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n"),
            Cause.CLOSED,
            "(the proxy says 407)",
        ),
    ],
)
def test_a_proxy_that_is_in_the_way(monkeypatch, place, cause, said):
    """That it is the proxy, not the service: its name is all that shows of what the environment says."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with place() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:canary@127.0.0.1:{port}")
        found = uplink("https://acct.example")
    assert found.cause is cause and said in found.said and "canary" not in repr(found), found


def test_a_key_that_is_none(monkeypatch):
    monkeypatch.setenv("A_KEY", "A")
    assert uplink("https://127.0.0.1:9").cause is Cause.CREDENTIAL


def test_a_queue_that_is_not_there(tmp_path):
    def answer(request: Request) -> Answer:
        if request.path.startswith("/receipts"):
            return storage_says(404, "QueueNotFound")(request)
        body = b'<?xml version="1.0"?><QueueMessagesList></QueueMessagesList>'
        return Answer(200, {"x-ms-request-id": "1", "Content-Type": "application/xml"}, body)

    with serving(tmp_path, answer) as server:
        section = {"queues": server.endpoint, "blobs": server.endpoint, "ca": str(server.ca)}
        profile = {"queue": {**section, "credential": {"key": {"env": "A_KEY"}}}}
        found = storage.queue(StackHubProfile.model_validate(profile))
        assert found.cause is Cause.MISSING and found.where.endswith("queue receipts")
        assert {one.headers["x-ms-version"] for one in server.asked} == {"2019-07-07"}


def test_every_container_is_asked(tmp_path):
    def answer(request: Request) -> Answer:
        if request.path.startswith("/%24web"):
            return storage_says(404, "ContainerNotFound")(request)
        if "comp=list" in request.path:
            body = b'<?xml version="1.0"?><EnumerationResults><Blobs/></EnumerationResults>'
            return Answer(200, {"x-ms-request-id": "1", "Content-Type": "application/xml"}, body)
        return fine(request)

    with serving(tmp_path, answer) as server:
        section = {"endpoint": server.endpoint, "ca": str(server.ca), "credential": {"key": {"env": "A_KEY"}}}
        found = storage.storage(AzureProfile.model_validate({"storage": section}))
    assert found.cause is Cause.MISSING and "$web" in found.where


class TestOthers:
    def factory(self, endpoint: str, ca: Path, **credential: object) -> Finding:
        given = {"subscription": ID, "resource_group": "g", "factory": "f", "pipeline": "p"}
        who = credential or {"entra": {"tenant": "t", "client": ID, "secret": {"env": "A_KEY"}}}
        section = {**given, "endpoint": endpoint, "ca": str(ca), "credential": who}
        return services.ingestion(AzureProfile.model_validate({"ingestion": section}).ingestion)

    def adfs(self, endpoint: str) -> dict[str, object]:
        return {"adfs": {"authority": endpoint, "client": "app", "secret": {"env": "A_KEY"}}}

    @pytest.mark.parametrize(
        ("status", "cause"),
        [(200, None), (401, Cause.CREDENTIAL), (403, Cause.PERMISSION), (404, Cause.MISSING)],
    )
    def test_a_factory(self, tmp_path, status, cause):
        def answer(request: Request) -> Answer:
            if not request.path.startswith("/adfs"):
                return Answer(status, {"Content-Type": "application/json"}, b'{"error": {"code": "No"}}')
            origin = f"https://{request.headers['host']}/adfs"
            told = {"token_endpoint": f"{origin}/oauth2/token", "authorization_endpoint": f"{origin}/a"}
            told |= {"issuer": origin, "access_token": "t", "token_type": "Bearer", "expires_in": "3600"}
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

        with serving(tmp_path, answer) as server:
            found = self.factory(server.endpoint, server.ca, **self.adfs(server.endpoint))
            assert found.cause is cause, found
            assert any("/factories/f/pipelines/p" in one.path for one in server.asked)

    def test_a_login_service_that_says_no(self, tmp_path):
        def answer(_: Request) -> Answer:
            said = b'{"error": "invalid_client", "error_description": "MSIS9659: Invalid client_id"}'
            return Answer(400, {"Content-Type": "application/json"}, said)

        with serving(tmp_path, answer) as server:
            found = self.factory(server.endpoint, server.ca, **self.adfs(server.endpoint))
        assert found.cause is Cause.CREDENTIAL

    def test_a_login_service_that_is_out_of_reach(self, tmp_path):
        with serving(tmp_path, fine) as server, socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            away = f"https://127.0.0.1:{closed.getsockname()[1]}"
            assert self.factory(server.endpoint, server.ca, **self.adfs(away)).cause is Cause.REFUSED

    @pytest.mark.parametrize(
        ("answer", "cause"),
        [
            (Answer(200, {"Content-Type": "application/json"}, b'{"sessions": []}'), None),
            (Answer(401), Cause.CREDENTIAL),
            (Answer(404), Cause.MISSING),
            (Answer(502), Cause.BUSY),
            (Answer(200, {"Content-Type": "text/html"}, b"<html>"), Cause.OTHER),
        ],
    )
    def test_livy(self, tmp_path, answer, cause):
        with serving(tmp_path, lambda _: answer) as server:
            given = {"engine": "spark-livy", "endpoint": f"{server.endpoint}/livy", "ca": str(server.ca)}
            given |= {"user": "admin", "password": {"env": "A_KEY"}}
            found = services.livy(Features.model_validate(given))
            assert found.cause is cause
            assert server.asked[0].path == "/livy/batches?size=1"
            assert server.asked[0].headers["authorization"].startswith("Basic ")

    def registry(self, repository: str, **who: object) -> Finding:
        section = {"repository": repository, **who}
        found = AzureProfile.model_validate({"registry": section}).registry
        assert found is not None
        return services.registry("azure.registry", found)

    @pytest.mark.parametrize(
        ("password", "cause"), [(acr.PASSWORD, None), ("another", Cause.CREDENTIAL), (None, Cause.CREDENTIAL)]
    )
    def test_a_registry(self, monkeypatch, password, cause):
        monkeypatch.setenv("A_TOKEN", password or "")
        who = {"user": acr.USER, "token": {"env": "A_TOKEN"}} if password else {}
        with acr.Acr(auth="bearer") as server:
            found = self.registry(server.repository, **who)
        assert found.cause is cause, found
        assert not password or password not in repr(found)

    def test_a_registry_that_is_not_there(self, tmp_path):
        assert self.registry("nobody.invalid/a/b").cause is Cause.NAME
        said = b'{"errors": [{"code": "NAME_UNKNOWN"}]}'
        with serving(tmp_path, lambda _: Answer(404, {"Content-Type": "application/json"}, said)) as server:
            assert self.registry(f"localhost:{server.port}/a/b", ca=str(server.ca)).cause is None
            assert self.registry(f"127.0.0.1:{server.port}/a/b", ca=str(server.ca)).cause is Cause.WRONG_HOST
        with serving(tmp_path, lambda _: Answer(404, {}, b"<html>")) as server:
            assert self.registry(f"localhost:{server.port}/a/b", ca=str(server.ca)).cause is Cause.OTHER

    @pytest.mark.parametrize(
        ("said", "cause"),
        [
            ('could not translate host name "db" to address: Name or service not known', Cause.NAME),
            ("connection to server at 127.0.0.1, port 5432 failed: Connection refused", Cause.REFUSED),
            ("connection to server failed: timeout expired", Cause.TIMEOUT),
            ('FATAL:  password authentication failed for user "dagster"', Cause.CREDENTIAL),
            ('FATAL:  database "dagster" does not exist', Cause.MISSING),
            ("SSL error: certificate verify failed", Cause.UNTRUSTED),
        ],
    )
    def test_what_libpq_says(self, said, cause):
        assert services._of_postgres(said)[0] is cause

    def test_dagster_s_database(self, tmp_path, monkeypatch):
        pytest.importorskip("dagster_postgres")
        file = tmp_path / "dagster.yaml"
        file.write_text("storage:\n  postgres:\n    postgres_url: {env: A_URL}\n")
        found = services.database(file)
        assert services.postgres(file, found).cause is Cause.SECRET
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setenv("A_URL", f"postgresql://u:canary@127.0.0.1:{closed.getsockname()[1]}/d")
            refused = services.postgres(file, found)
        assert refused.cause is Cause.REFUSED and "canary" not in repr(refused)
        file.write_text("telemetry: {enabled: false}\n")
        assert services.database(file) is None

    def test_a_database_told_in_parts(self, tmp_path, monkeypatch):
        """As Dagster's Helm chart writes it: any value may be a variable."""
        pytest.importorskip("dagster_postgres")
        file = tmp_path / "dagster.yaml"
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            parts = f"hostname: 127.0.0.1, port: {closed.getsockname()[1]}, db_name: d, username: u"
            file.write_text(f"storage: {{postgres: {{postgres_db: {{{parts}, password: {{env: A_WORD}}}}}}}}")
            found = services.database(file)
            assert found is not None
            unset = services.postgres(file, found)
            monkeypatch.setenv("A_WORD", "canary")
            refused = services.postgres(file, found)
        assert unset.cause is Cause.SECRET and "A_WORD" in unset.said and str(file) in unset.said
        assert refused.cause is Cause.REFUSED and "Connection refused" in refused.said

    def test_of_a_password_that_broke_the_address_nothing_shows(self, tmp_path, monkeypatch):
        """An @ in it that is not written as %40: what stands behind it is taken for the host."""
        pytest.importorskip("dagster_postgres")
        monkeypatch.setenv("A_URL", "postgresql://u:can@ary@127.0.0.1/d")
        found = services.postgres(tmp_path, {"postgres_url": {"env": "A_URL"}})
        assert found.cause is Cause.NAME and "ary" not in repr(found) and "%40" in found.said

    @pytest.mark.parametrize("text", ['storage: {postgres: {postgres_url: "canary', "- canary", "canary"])
    def test_a_dagster_yaml_that_is_none(self, text):
        home = Settings.load().folders()
        home.dagster.mkdir(parents=True)
        (home.dagster / "dagster.yaml").write_text(text)
        found = examine.checks(Settings.load())["dagster.storage"]()
        assert found.cause is Cause.SETTINGS and "dagster.yaml" in found.said and "canary" not in repr(found)
        assert "\n" not in found.said


class TestHere:
    def test_a_home_that_can_be_made(self, tmp_path):
        home = Settings.load().folders()
        assert here.home(home).said.startswith("is not there yet and can be made")
        home.root.mkdir()
        assert here.home(home).cause is None

    def test_a_disk_that_is_full(self, tmp_path, monkeypatch):
        monkeypatch.setattr(here, "ENOUGH_BYTES", 1 << 60)
        assert "MB are free" in here.home(Settings.load().folders()).said

    def test_a_home_that_is_not_ours(self, monkeypatch, tmp_path):
        def denied(**_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(here.tempfile, "TemporaryFile", denied)
        found = here.home(Settings.load().folders())
        assert found.cause is Cause.HERE and "cannot be written to (Permission denied)" in found.said

    def test_a_use_case_that_cannot_be_used(self, tmp_path):
        (tmp_path / "case.yaml").write_text("name: 1\n")
        found = here.usecase(Settings.load(usecase=tmp_path / "case.yaml"))
        assert found.cause is Cause.SETTINGS and "case.yaml" in found.said and "\n" not in found.said

    def test_a_runtime_that_is_described_wrongly(self, tmp_path):
        site = Settings.load().folders().site("bergen")
        site.root.mkdir(parents=True)
        (site.root / "runtime.toml").write_text('kind = "other"')
        todo = examine.checks(Settings.load())
        assert {"home", "use case", "trust", "runtime of bergen"} == set(todo)
        assert todo["runtime of bergen"]().cause is Cause.SETTINGS
        assert todo["trust"]().cause is None

    @pytest.mark.parametrize(
        ("raised", "cause"),
        [
            (Unreachable("the API server does not answer"), Cause.TIMEOUT),
            (ClusterError("the cluster does not know who asks (401)"), Cause.CREDENTIAL),
        ],
    )
    def test_a_cluster_that_cannot_be_asked(self, monkeypatch, raised, cause):
        class Runtime:
            def status(self) -> None:
                raise raised

        monkeypatch.setattr(choice, "runtime", lambda folder, site: Runtime())
        found = here.runtime(Settings.load().folders().site("bergen"))
        assert found.cause is cause and str(raised) in found.said


def test_each_check_is_asked_at_once_and_none_holds_up_the_others():
    release = threading.Event()
    together = threading.Barrier(3)

    def hangs() -> Finding:
        release.wait(60)
        return Finding("b", "")

    def meets() -> Finding:
        together.wait(60)
        return Finding("a", "")

    began = time.monotonic()
    found = examine.examine({"a": meets, "b": hangs, "c": meets, "d": meets}, seconds=2)
    release.set()
    assert [each.cause for each in found] == [None, Cause.TIMEOUT, None, None]
    assert time.monotonic() - began < 30


def test_a_defect_of_a_check_is_no_finding():
    def broken() -> Finding:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        examine.examine({"a": broken})


def test_every_cause_says_what_to_do():
    assert set(WORDS) == set(Cause) and {finding.Finding("a", "", each).state for each in AWAY} == {
        State.UNREACHABLE
    }


def stub(case: str) -> Callable[[Path], AbstractContextManager[Server]]:
    answer, ahead, _, _ = ANSWERS[case]
    return lambda folder: serving(folder, answer, ahead=ahead)


SAS = {"CREDENTIAL__KEY__ENV": "", "CREDENTIAL__SAS__ENV": "A_SAS"}
INJECTED: dict[str, tuple[Any, Cause, dict[str, str]]] = {
    "name": ("https://nobody.invalid", Cause.NAME, {}),
    "refused": ("https://127.0.0.1:9", Cause.REFUSED, {}),
    "black hole": (lambda _: black_hole(), Cause.TIMEOUT, {}),
    "unknown authority": (lambda folder: serving(folder, fine), Cause.UNTRUSTED, {}),
    "other host": (lambda folder: serving(folder, fine, names=("b.example",)), Cause.WRONG_HOST, {}),
    "clock": (stub("clock behind"), Cause.CLOCK, {}),
    "wrong key": (stub("wrong key"), Cause.CREDENTIAL, {}),
    "expired signature": (stub("wrong key"), Cause.EXPIRED, SAS),
    "no permission": (stub("no permission"), Cause.PERMISSION, {}),
    "version": (stub("version"), Cause.VERSION, {}),
    "container": (stub("container"), Cause.MISSING, {}),
    "secret unset": ("https://127.0.0.1:9", Cause.SECRET, {"CREDENTIAL__KEY__ENV": "NOT_SET"}),
    "portal": (stub("portal"), Cause.OTHER, {}),
}


class TestCommand:
    def run(self, *arguments: str) -> tuple[int, str]:
        app = typer.Typer()
        app.command()(doctor.doctor)
        done = CliRunner().invoke(app, list(arguments))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout

    def test_nothing_is_configured(self):
        code, said = self.run()
        assert code == 0 and "No service is configured" in said and said.startswith("fine home")
        code, said = self.run("--json")
        told = json.loads(said)
        assert code == 0 and told["fine"] and told["services"] == 0
        assert set(told["checks"][0]) == {"service", "where", "state", "cause", "said"}

    @pytest.mark.parametrize(
        ("endpoint", "key", "code"),
        [("https://nobody.invalid", "A_KEY", 3), ("https://nobody.invalid", "NOT_SET", 1)],
    )
    def test_exit_codes(self, monkeypatch, endpoint, key, code):
        monkeypatch.setenv("EDGE_AI_STACK_HUB__UPLINK__ENDPOINT", endpoint)
        monkeypatch.setenv("EDGE_AI_STACK_HUB__UPLINK__CREDENTIAL__KEY__ENV", key)
        found, said = self.run("--json")
        assert (found, json.loads(said)["fine"]) == (code, False)
        assert self.run()[0] == code

    @pytest.mark.parametrize("case", INJECTED)
    def test_each_misconfiguration_is_named(self, case, monkeypatch, tmp_path):
        """From settings to the line that is shown, with the exit code."""
        place, cause, changed = INJECTED[case]
        where = place(tmp_path) if callable(place) else nullcontext(place)
        with where as server:
            endpoint = server if isinstance(server, str) else server.endpoint
            given = {"ENDPOINT": endpoint, "CREDENTIAL__KEY__ENV": "A_KEY"}
            if not isinstance(server, str) and case != "unknown authority":
                given["CA"] = str(server.ca)
            monkeypatch.setenv("A_SAS", f"sv=2019-07-07&se={EXPIRED}&sp=rcw&sig=x")
            for name, value in (given | changed).items():
                monkeypatch.setenv(f"EDGE_AI_STACK_HUB__UPLINK__{name}", value)
            code, said = self.run("--json")
            shown = self.run()[1]
        (check,) = [one for one in json.loads(said)["checks"] if one["service"] == "stack_hub.uplink"]
        assert check["cause"] == cause, check
        assert code == (3 if Cause(cause) in AWAY else 1)
        assert (
            WORDS[Cause(cause)] in shown
            and sum("stack_hub.uplink" in line for line in shown.splitlines()) == 1
        )

    def test_what_a_client_warns_of_is_said_once(self, monkeypatch, caplog):
        section = "EDGE_AI_STACK_HUB__UPLINK__"
        monkeypatch.setenv(f"{section}ENDPOINT", "https://127.0.0.1:9")
        who = {"authority": "https://127.0.0.1:9", "client": "c", "secret": {"env": "A_KEY"}}
        monkeypatch.setenv(f"{section}CREDENTIAL", json.dumps({"adfs": who}))
        assert self.run()[0] == 3
        assert not [one for one in caplog.records if one.name.startswith("azure")]

    def test_settings_that_cannot_be_used_are_a_finding(self, monkeypatch):
        monkeypatch.setenv("EDGE_AI_STACK_HUB__QUEUE__COLOUR", "x")
        code, said = self.run("--json")
        checks = json.loads(said)["checks"]
        assert code == 1 and {one["cause"] for one in checks} == {"settings"} and len(checks) == 4
        assert any("COLOUR" in one["said"] for one in checks)
        assert len(self.run()[1].splitlines()) == 5

    def test_a_deadline_is_kept(self, monkeypatch):
        monkeypatch.setattr(storage, "CONNECT_SECONDS", 30.0)
        with black_hole() as endpoint:
            monkeypatch.setenv("EDGE_AI_STACK_HUB__UPLINK__ENDPOINT", endpoint)
            monkeypatch.setenv("EDGE_AI_STACK_HUB__UPLINK__CREDENTIAL__KEY__ENV", "A_KEY")
            began = time.monotonic()
            code, said = self.run("--deadline", "1")
        assert code == 3 and "nothing came in 1 s" in said and time.monotonic() - began < 20


def test_the_cause_is_found_however_deep_it_is():
    def raised() -> Exception:
        try:
            try:
                raise ConnectionRefusedError(111, "refused")
            except OSError as error:
                raise ValueError(error) from None
        except ValueError as outer:
            return RuntimeError("wrapped", outer)

    assert causes.why(raised())[0] is Cause.REFUSED


def test_a_loop_of_errors_ends():
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert len(list(causes.chain(one))) == 2
