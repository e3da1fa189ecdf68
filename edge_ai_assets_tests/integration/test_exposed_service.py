"""The service where other machines reach it: TLS by a private authority, tokens and roles, renewals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring import supervisor, tokens
from edge_ai_assets.scoring.http import HEAD_SECONDS
from edge_ai_assets.scoring.supervisor import DeploymentFailed, Status
from edge_ai_assets.scoring.tls import CHECK_SECONDS
from edge_ai_assets_tests.ports import free_port
from edge_ai_assets_tests.scoring.processes import SITE, Asking, Service, accepted, ask, wait
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = pytest.mark.integration

RECORD = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}
BODY = json.dumps({"records": [RECORD]}).encode()
FEEDBACK = json.dumps({"items": [{"id": f"{SITE}/1", "correct": False}]}).encode()
REVOKED_SECONDS = 2.0
PATHS = {
    "/v1/score": BODY,
    "/v1/feedback": FEEDBACK,
    "/metrics": None,
    "/v1/status": None,
    "/v1/recent": None,
    "/v1/contract": None,
    "/v2": None,
    "/v2/models/tiny/infer": b"{}",
    "/health/ready": None,
    "/": None,
    "/docs": None,
    "/openapi.json": None,
}
OPEN = {"/health/ready", "/", "/docs"}
ALLOWED = {
    "score": {
        "/v1/score",
        "/v2/models/tiny/infer",
        "/v1/status",
        "/v1/recent",
        "/v1/contract",
        "/v2",
        "/openapi.json",
    },
    "feedback": {"/v1/feedback", "/v1/status", "/v1/recent", "/v1/contract", "/v2", "/openapi.json"},
    "operate": {"/metrics", "/v1/status", "/v1/recent", "/v1/contract", "/v2", "/openapi.json"},
}


class Authority:
    """A private one, as a plant has it, and what a client needs to trust it."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the plant's authority")])
        self._name = name
        made = _builder(name, name, self._key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = made.add_extension(usage, critical=True)
        self.root = folder / "root.crt"
        self.root.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, folder: Path, name: str) -> None:
        """`tls.crt` and `tls.key` for this machine, in place of those that are there."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        made = (
            _builder(subject, self._name, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        plain = serialization.NoEncryption()
        for file, content in (
            ("tls.crt", made.public_bytes(serialization.Encoding.PEM)),
            (
                "tls.key",
                key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
            ),
        ):
            fresh = folder / f"{file}.new"
            fresh.write_bytes(content)
            fresh.chmod(0o600)
            fresh.replace(folder / file)

    @property
    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.root))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
    )


class Guards(NamedTuple):
    """A folder with a certificate, its key and tokens, and who issued them."""

    folder: Path
    authority: Authority
    token: dict[str, str]
    """By role, and "all" with each."""

    @property
    def options(self) -> list[str]:
        certificate = [
            "--tls-certificate",
            str(self.folder / "tls.crt"),
            "--tls-key",
            str(self.folder / "tls.key"),
        ]
        return ["--host", "0.0.0.0", *certificate, "--tokens", str(self.folder / "tokens.json")]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def guards(tmp_path: Path) -> Guards:
    folder = tmp_path / "site"
    folder.mkdir()
    authority = Authority(tmp_path)
    authority.issue(folder, "site")
    path = folder / "tokens.json"
    made = {role: tokens.add(path, role, [role]) for role in tokens.ROLES}
    return Guards(folder, authority, made | {"all": tokens.add(path, "everything", tokens.ROLES)})


def exposed(service: Service) -> str:
    return f"https://localhost:{urlsplit(service.url).port}"


def subject(url: str, trusted: ssl.SSLContext) -> str:
    """Whose certificate a new connection is shown."""
    where = urlsplit(url)
    with (
        socket.create_connection((where.hostname, where.port), timeout=60) as plain,
        trusted.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        found = secure.getpeercert()
        assert found is not None
        return str(dict(part[0] for part in found["subject"])["commonName"])  # type: ignore[misc,index]


@pytest.mark.parametrize("left_out", ["--tls-certificate", "--tls-key", "--tokens", "all"])
def test_another_address_is_refused_without_its_guards(guards, release, tmp_path, left_out):
    given = guards.options
    if left_out == "all":
        given = given[:2]
    else:
        place = given.index(left_out)
        del given[place : place + 2]
    service = Service(tmp_path / "run", release, *given, wait=False)
    assert service.process.wait(60) == 1
    (line,) = service.said
    assert ("host '0.0.0.0' is refused" in line["message"]) or ("go together" in line["message"])


def test_behind_a_proxy_it_takes_requests_as_they_come(release, tmp_path):
    with Service(tmp_path / "run", release, "--host", "0.0.0.0", "--behind-proxy") as service:
        url = f"http://127.0.0.1:{urlsplit(service.url).port}"
        assert ask(url, "/v1/score", BODY).status == 200
        assert service.end() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_trusts_the_authority_scores_with_a_token(guards, release, tmp_path, workers):
    trusted = guards.authority.trusted
    with Service(tmp_path / "run", release, *guards.options, workers=workers) as service:
        url = exposed(service)
        with Asking(url, tls=trusted, token=guards.token["score"]) as asking:
            for number in range(1, 6):
                answer = asking.ask("POST", "/v1/score", BODY)
                assert (answer.status, answer.json["results"][0]["id"]) == (200, f"{SITE}/{number}")
            large = json.dumps({"records": [RECORD] * 20_000}).encode()
            assert len(asking.ask("POST", "/v1/score", large).json["results"]) == 20_000
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get local issuer"):
            ask(url, "/health/live", tls=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
            ask(url.replace("localhost", "127.0.0.2"), "/health/live", tls=trusted)
        with pytest.raises((http.client.HTTPException, OSError)):  # it speaks TLS only
            ask(url.replace("https", "http"), "/health/live")
        assert service.end() == 0


def test_each_role_may_what_it_is_for(guards, release, tmp_path):
    trusted = guards.authority.trusted
    with Service(tmp_path / "run", release, *guards.options) as service:
        url = exposed(service)
        assert ask(url, "/v1/score", BODY, tls=trusted, token=guards.token["all"]).status == 200
        wrong = guards.token["all"][:-1] + ("a" if guards.token["all"][-1] != "a" else "b")
        for path, body in PATHS.items():
            for token in (None, wrong):
                answer = ask(url, path, body, tls=trusted, token=token)
                assert (answer.status == 401) is (path not in OPEN), (path, answer)
                if answer.status == 401:
                    assert answer.headers["www-authenticate"] == "Bearer"
            for role, allowed in ALLOWED.items():
                answer = ask(url, path, body, tls=trusted, token=guards.token[role])
                assert (answer.status == 403) is (path not in OPEN | allowed), (path, role, answer)
                assert answer.status != 401
                if answer.status == 403:
                    assert f"the token of {role!r} has not the role" in answer.json["error"]
        said = service.log.read_text()
        assert not [token for token in guards.token.values() if token in said]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_revoked_token_ends_and_a_new_one_works_without_a_restart(guards, release, tmp_path, workers):
    trusted, path = guards.authority.trusted, guards.folder / "tokens.json"
    gone = next(each for each in tokens.listed(path) if each.name == "score")
    with Service(tmp_path / "run", release, *guards.options, workers=workers) as service:
        url = exposed(service)
        # On connections that were made before: each worker has its own.
        with contextlib.ExitStack() as stack:
            given = {"tls": trusted, "token": guards.token["score"]}
            asking = [stack.enter_context(Asking(url, **given)) for _ in range(6)]
            assert {each.ask("POST", "/v1/score", BODY).status for each in asking} == {200}
            tokens.revoke(path, gone.id)
            fresh = tokens.add(path, "new", ["score"])
            time.sleep(REVOKED_SECONDS)
            assert {each.ask("POST", "/v1/score", BODY).status for each in asking} == {401}
        assert {ask(url, "/v1/score", BODY, tls=trusted, token=fresh).status for _ in range(6)} == {200}
        other = guards.token["operate"]
        assert ask(url, "/metrics", tls=trusted, token=other).status == 200


def test_a_tokens_file_opened_to_others_lets_nobody_new_in_and_is_said(guards, release, tmp_path):
    trusted, path = guards.authority.trusted, guards.folder / "tokens.json"
    with Service(tmp_path / "run", release, *guards.options) as service:
        url = exposed(service)
        fresh = tokens.add(path, "new", ["score"])
        path.chmod(0o666)
        time.sleep(REVOKED_SECONDS)
        assert ask(url, "/v1/score", BODY, tls=trusted, token=fresh).status == 401
        assert ask(url, "/v1/score", BODY, tls=trusted, token=guards.token["score"]).status == 200
        assert "is open to other users (mode 0666)" in service.log.read_text()
    refused = Service(tmp_path / "run", release, *guards.options, wait=False)
    assert refused.process.wait(60) == 1
    assert "is open to other users (mode 0666): chmod 06" in refused.said[-1]["message"]


@pytest.mark.slow
def test_a_renewed_certificate_is_shown_to_new_connections(guards, release, tmp_path):
    trusted = guards.authority.trusted
    with Service(tmp_path / "run", release, *guards.options) as service:
        url = exposed(service)
        with Asking(url, tls=trusted, token=guards.token["score"]) as asking:
            assert asking.ask("POST", "/v1/score", BODY).status == 200
            assert subject(url, trusted) == "site"
            guards.authority.issue(guards.folder, "renewed")
            wait(lambda: subject(url, trusted) == "renewed", CHECK_SECONDS + 60)
            assert asking.ask("POST", "/v1/score", BODY).status == 200  # a connection of before goes on
        broken = guards.folder / "tls.crt"
        broken.write_bytes(b"no certificate")
        time.sleep(CHECK_SECONDS + 1)
        assert subject(url, trusted) == "renewed"
        assert "the certificate stays as it was before" in service.log.read_text()


@pytest.mark.slow
def test_who_opens_a_connection_and_says_nothing_is_sent_away(guards, release, tmp_path):
    """Before the handshake too, which needs no token."""
    with Service(tmp_path / "run", release, *guards.options) as service:
        where = ("localhost", urlsplit(service.url).port)
        opened = [socket.create_connection(where, timeout=HEAD_SECONDS + 30) for _ in range(20)]
        for connection in opened[:10]:
            connection.sendall(b"\x16\x03\x01\x02\x00")  # how a handshake begins
        began = time.monotonic()
        for connection in opened:
            with connection:
                assert connection.recv(100) == b""
        assert HEAD_SECONDS - 2 < time.monotonic() - began < HEAD_SECONDS + 30
        assert ask(exposed(service), "/health/live", tls=guards.authority.trusted).status == 200
        assert service.end() == 0


# The site's supervisor with a service.toml: two doors.


class Site(NamedTuple):
    guards: Guards
    releases: dict[int, Path]
    port: int

    @property
    def folder(self) -> Path:
        return self.guards.folder

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def deploy(self, version: int) -> Status:
        path = self.releases[version]
        return supervisor.deploy(
            self.folder, site=SITE, release_id=f"sha256:{version}", version=version, path=path, timeout=60
        )

    def status(self) -> Status:
        found = supervisor.status(self.folder)
        assert found is not None
        return found


@pytest.fixture
def site(guards: Guards, tmp_path: Path) -> Iterator[Site]:
    port = free_port()
    releases = {version: tiny_release(tmp_path / str(version), bias=-float(version)) for version in (1, 2)}
    (guards.folder / "service.toml").write_text(
        f'host = "0.0.0.0"\nport = {port}\nworkers = 2\n'
        'tls_certificate = "tls.crt"\ntls_key = "tls.key"\ntokens = "tokens.json"\n'
    )
    yield Site(guards, releases, port)
    supervisor.stop(guards.folder)


def assert_both_doors(site: Site, version: int) -> None:
    """Loopback asks for nothing, the other address for TLS and a token; both serve this release."""
    status, trusted = site.status(), site.guards.authority.trusted
    assert status.url is not None
    within = ask(status.url, "/v1/score", BODY)
    without = ask(site.url, "/v1/score", BODY, tls=trusted)
    by_token = ask(site.url, "/v1/score", BODY, tls=trusted, token=site.guards.token["score"])
    assert (within.status, without.status, by_token.status) == (200, 401, 200)
    assert {within.json["release"], by_token.json["release"]} == {f"sha256:{version}"}
    assert ask(status.url, "/metrics").status == 200


class Asked:
    """Clients at both doors, without a pause; what failed."""

    def __init__(self, site: Site) -> None:
        self.failed: list[str] = []
        self.answered = {True: 0, False: 0}
        self._site, self._end = site, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(guarded,)) for guarded in (True, False) * 2]

    def __enter__(self) -> Asked:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, guarded: bool) -> None:
        trusted, token = self._site.guards.authority.trusted, self._site.guards.token["score"]
        url = self._site.url if guarded else str(self._site.status().url)
        while not self._end.is_set():
            with Asking(url, tls=trusted if guarded else None, token=token if guarded else None) as asking:
                try:
                    for _ in range(50):  # then on a new connection
                        answer = asking.ask("POST", "/v1/score", BODY)
                        if answer.status != 200:
                            self.failed.append(f"{answer.status} {answer.body!r}")
                        self.answered[guarded] += 1
                        time.sleep(0.005)
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(repr(error))


def test_both_doors_serve_also_across_switches(site: Site):
    site.deploy(1)
    assert_both_doors(site, 1)
    with Asked(site) as asked:
        for number in range(6):
            site.deploy(2 - number % 2)
    assert asked.failed == [] and min(asked.answered.values()) > 50
    wait(lambda: ask(str(site.status().url), "/v1/contract").json["release"] == "sha256:1")
    assert_both_doors(site, 1)


def test_a_handshake_that_is_under_way_during_a_switch_is_finished_and_answered(site: Site):
    """A connection that was accepted, and has said nothing yet, belongs to a process that is about to end."""
    site.deploy(1)
    trusted = site.guards.authority.trusted
    head = f"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n"
    head += f"Authorization: Bearer {site.guards.token['score']}\r\n\r\n"
    for version in (2, 1):
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(socket.create_connection(("localhost", site.port), timeout=60))
                for _ in range(4)
            ]
            wait(lambda: all(map(accepted, opened)))  # noqa: B023 - called in this turn
            site.deploy(version)
            time.sleep(0.3)
            for plain in opened:
                secure = stack.enter_context(trusted.wrap_socket(plain, server_hostname="localhost"))

                def told(secure: ssl.SSLSocket = secure, former: int = 3 - version) -> bool:
                    secure.sendall(head.encode() + BODY)
                    answer = http.client.HTTPResponse(secure)
                    answer.begin()
                    assert answer.status == 200
                    assert json.loads(answer.read())["release"] == f"sha256:{former}"
                    return answer.headers.get("connection") == "close"

                wait(told)  # with its first answer, or when the process has heard of the other one


def test_both_doors_serve_again_when_the_service_was_killed(site: Site):
    status = site.deploy(1)
    for _ in range(2):
        pid = wait(lambda: site.status().child_pid)
        os.kill(pid, signal.SIGKILL)
        wait(lambda: site.status().child_pid not in (None, pid))  # noqa: B023 - called in this turn
        assert_both_doors(site, 1)
    assert site.status().url == status.url


def test_both_doors_are_the_same_when_the_supervisor_was_killed(site: Site):
    """What it served may still be ending, and hold the ports for a moment."""
    before = site.deploy(1)
    for version in (2, 1, 2):
        with Asking(site.url, tls=site.guards.authority.trusted) as idle:
            idle.ask("GET", "/health/live")
            os.kill(site.status().pid, signal.SIGKILL)
            assert site.deploy(version).url == before.url
        wait(lambda v=version: ask(str(before.url), "/v1/contract").json["release"] == f"sha256:{v}")  # type: ignore[misc]
        assert_both_doors(site, version)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('host = "0.0.0.0"', "host '0.0.0.0' is refused"),
        ("workers = 0", "workers must be a whole number from 1 to 64, it is 0"),
        ('hots = "0.0.0.0"', "'hots' is not known"),
        ('tokens = "tokens.json"', "open to other users"),
        ('tls_certificate = "none.crt"\ntls_key = "tls.key"', "none.crt cannot be read"),
    ],
)
def test_a_wrong_service_toml_fails_the_deployment_and_says_why(site: Site, text: str, reason: str):
    (site.folder / "tokens.json").chmod(0o644)
    (site.folder / "service.toml").write_text(text)
    with pytest.raises(DeploymentFailed) as failed:
        site.deploy(1)
    assert reason in str(failed.value)
    assert not files.supervised(site.folder) or supervisor.status(site.folder) is None
