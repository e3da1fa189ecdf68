"""What a storage account's answers and silences become: one sentence each, the right class, no secret.

The answers are a contract stub: those that no emulator can be made to give.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import socket
import threading
import time
import traceback
from pathlib import Path

import pytest

from edge_ai_assets.resources.storage import account as accounts
from edge_ai_assets.resources.storage.account import HUB_API_VERSION, Account
from edge_ai_assets.resources.storage.blob_notes import BlobNotes
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.resources.uplink.blob_uplink import COST, BlobUplink, block_id, blocks_at_first
from edge_ai_assets.returns.hub.queue import QueueError
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.pace import Pace
from edge_ai_assets.returns.road.roads import UplinkError
from edge_ai_assets_tests.integration.faults import Proxy

azure = pytest.importorskip("azure.storage.queue", reason="the extra with Azure's storage clients")
SECRET = "c2lnbmF0dXJl"
ANSWERS = {
    "busy": (b"503 Server Busy\r\nRetry-After: 30", LinkDown, "too busy"),
    "many": (b"429 Slow\r\nRetry-After: 30", LinkDown, "too busy"),
    "portal": (b"200 OK", LinkDown, "something else"),
    "moved": (b"302 Found\r\nLocation: /", LinkDown, r"something else|out of reach"),
    "nothing": (b"404 None", LinkDown, "something else"),
    "noise": (b"\x00\xff", LinkDown, "out of reach"),
    "token": (b"401 Who", UplinkError, "refuses the credential"),
    "rights": (
        b"403 No\r\nx-ms-error-code: AuthorizationFailure",
        UplinkError,
        r"AuthorizationFailure\): check",
    ),
    "place": (b"404 No\r\nx-ms-error-code: ContainerNotFound", UplinkError, "no such place"),
    "other": (b"400 No\r\nx-ms-error-code: InvalidHeaderValue", UplinkError, r"refuses \(400 InvalidHeader"),
}


def signed(port: int, **changes: object) -> Account:
    from azure.core.credentials import AzureSasCredential

    credential = AzureSasCredential(f"sv=2021-12-02&sr=c&sig={SECRET}")
    options = {"connect_seconds": 1.0, "read_seconds": 20.0, **changes}
    return Account(f"http://127.0.0.1:{port}/cloud", credential, **options)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "p.zip").write_bytes(b"package")
    return tmp_path / "p.zip"


def send(account: Account, path: Path) -> int:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return BlobUplink(account, "c", "bergen").send(path, path.name, digest, lambda first, last: None)


def answering(answer: bytes) -> Proxy:
    return Proxy(0, answer=b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_may_answer(package, answer):
    reply, error, said = ANSWERS[answer]
    with answering(reply) as proxy:
        began = time.monotonic()
        with pytest.raises(error, match=said):
            send(signed(proxy.port), package)
        with pytest.raises(LinkDown):
            BlobUplink(signed(proxy.port), "c", "bergen").probe()
        for call in (BlobNotes(signed(proxy.port), "c").read, StorageQueue(signed(proxy.port), "q").send):
            with pytest.raises((LinkDown, QueueError)):
                call("x" if call.__name__ == "read" else b"x")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("answer", [None, *ANSWERS])
def test_no_error_and_no_log_shows_a_signature(package, caplog, answer):
    with answering(ANSWERS[answer][0] if answer else b"") as proxy:
        port = proxy.port if answer else 9
        account = signed(port)
        assert SECRET not in repr(account)
        with caplog.at_level(logging.DEBUG), pytest.raises((LinkDown, UplinkError)) as raised:
            send(account, package)
        assert SECRET not in "".join(traceback.format_exception(raised.value))
        assert SECRET not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("azure"))


def test_a_name_that_nobody_resolves(monkeypatch):
    account = signed(9, connect_seconds=0.2)
    object.__setattr__(account, "endpoint", "https://cloud.blob.example.invalid")

    over = threading.Event()

    def never(*arguments: object, **options: object) -> None:
        over.wait(60)

    monkeypatch.setattr(accounts.socket, "getaddrinfo", never)
    began = time.monotonic()
    with pytest.raises(LinkDown, match=r"nobody told the address of cloud\.blob\.example\.invalid in 0\.2 s"):
        BlobUplink(account, "c", "bergen").probe()
    assert time.monotonic() - began < 20
    over.set()

    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(accounts.socket, "getaddrinfo", unknown)
    with pytest.raises(LinkDown, match="is not known here"):
        BlobUplink(account, "c", "bergen").probe()


def test_a_hub_hears_a_version_that_it_knows(package):
    from azure.core.credentials import AzureNamedKeyCredential

    with answering(b"503 Busy") as proxy:
        key = AzureNamedKeyCredential("acct", "a2V5")
        hub = Account(f"http://127.0.0.1:{proxy.port}/acct", key, HUB_API_VERSION)
        for call in (
            lambda: BlobNotes(hub, "egress").read("x"),
            lambda: BlobNotes(hub, "egress").write("x", b"1", None),
            lambda: BlobNotes(hub, "egress").create(),
            lambda: StorageQueue(hub, "q").create(),
            lambda: StorageQueue(hub, "q").send(b"x"),
            lambda: StorageQueue(hub, "q").receive(1, 1),
            lambda: StorageQueue(hub, "q").peek(1),
            lambda: StorageQueue(hub, "q").count(),
            lambda: send(hub, package),
        ):
            with pytest.raises(LinkDown, match="too busy"):
                call()
        assert proxy.versions() == [HUB_API_VERSION] * 9 and max(proxy.versions()) <= "2019-07-07"


def test_an_endpoint_of_any_suffix_is_taken():
    from azure.core.credentials import AzureNamedKeyCredential

    hub = Account(
        "https://acct.blob.region.hub.example", AzureNamedKeyCredential("acct", "a2V5"), HUB_API_VERSION
    )
    assert BlobUplink(hub, "c", "bergen").destination == "https://acct.blob.region.hub.example/c/bergen"
    queues = Account("https://acct.queue.region.hub.example", hub.credential, HUB_API_VERSION)
    assert queues.queue("q").url == "https://acct.queue.region.hub.example/q"


def test_block_names_tell_place_file_and_size_apart():
    places = itertools.product((0, 1, packages.MAX_BYTES), "ab", (1, 2**16, 2**22))
    names = {block_id(first, digest * 64, block) for first, digest, block in places}
    assert len(names) == 18 and len({len(name) for name in names}) == 1


@pytest.mark.parametrize(
    ("block", "rate", "blocks"),
    [(2**13, None, COST), (2**13, 250_000, COST), (2**13, 30_000, 9), (2**18, 250_000, 2), (2**22, 1_000, 1)],
)
def test_a_slow_pace_begins_with_few_blocks(block, rate, blocks):
    """A server closes a connection on which nothing comes for minutes; and a cut is to be noticed soon."""
    assert blocks_at_first(block, Pace(rate)) == blocks


def test_the_name_of_a_proxy_is_looked_up_in_place_of_the_account_s(monkeypatch):
    from azure.core.credentials import AzureNamedKeyCredential

    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@proxy.nowhere.invalid:3128")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    at = Account("https://acct.example", AzureNamedKeyCredential("acct", "a2V5"))
    with pytest.raises(LinkDown, match=r"the proxy proxy\.nowhere\.invalid is not known") as raised:
        BlobUplink(at, "c", "bergen").probe()
    assert SECRET not in str(raised.value)


def test_certificates_that_are_not_there_are_no_cut(tmp_path):
    from azure.core.credentials import AzureNamedKeyCredential

    at = Account("https://127.0.0.1", AzureNamedKeyCredential("acct", "a2V5"), ca=tmp_path / "ca.pem")
    with pytest.raises(UplinkError, match=r"ca\.pem, whose certificates .* is not there: mount it"):
        BlobUplink(at, "c", "bergen").acknowledgement()


def test_a_key_that_is_none_is_no_cut():
    from azure.core.credentials import AzureNamedKeyCredential

    at = Account("https://127.0.0.1:9", AzureNamedKeyCredential("acct", "A"))
    with pytest.raises(UplinkError, match=r"cannot be asked with this credential \(the key is no base64\)"):
        BlobUplink(at, "c", "bergen").acknowledgement()


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("Authentication failed: AADSTS7000222: The provided client secret keys are expired.", UplinkError),
        ("Authentication failed: MSIS9659: Invalid client_id", UplinkError),
        ("Authentication failed: Connection aborted", LinkDown),
    ],
)
def test_a_login_service_that_refuses_is_no_cut(said, raised):
    """An application's secret that has expired is not to look like a link that is down for ever."""
    from azure.core.exceptions import ClientAuthenticationError

    class Login:
        def get_token(self, *_: str, **__: object) -> None:
            raise ClientAuthenticationError(f"{said} {SECRET}")

    with pytest.raises(raised) as found:
        BlobUplink(Account("https://127.0.0.1:9", Login()), "c", "bergen").acknowledgement()
    assert SECRET not in "".join(traceback.format_exception(found.value))
