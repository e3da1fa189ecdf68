"""The connections of the uplink: many, kept open, and with a congestion control for lossy links."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.uplink import transport
from edge_ai_assets_tests.contract.tls_server import Answer, serving

TCP_CC_INFO = 26


def test_a_kernel_without_bbr_keeps_its_own(monkeypatch):
    monkeypatch.setattr(transport, "CONGESTION_CONTROL", b"none-such")
    options = transport.socket_options()
    assert options and all(option != socket.TCP_CONGESTION for _, option, _ in options)


def test_bbr_is_used_where_it_may_be():
    with socket.socket() as trial:
        try:
            trial.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        except OSError:
            pytest.skip("this kernel has no BBR, or does not let us use it")
    assert (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr") in transport.socket_options()


def test_bbr_forgets_the_requests_before():
    """By what the kernel tells of it: `struct tcp_bbr_info`, whose first 8 bytes are the rate it found."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
    ):
        theirs, _ = server.accept()
        with theirs:
            transport._begin_anew(ours)  # whatever is in use stays in use
            try:
                ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
            except OSError:
                pytest.skip("this kernel has no BBR, or does not let us use it")
            found = lambda: ours.getsockopt(socket.IPPROTO_TCP, TCP_CC_INFO, 20)[:8]  # noqa: E731
            for _ in range(4):
                ours.sendall(b"x" * 10_000)
                theirs.recv(10_000, socket.MSG_WAITALL)
                theirs.sendall(b"y")
                ours.recv(1)
            assert any(found())
            transport._begin_anew(ours)
            assert not any(found())
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"bbr")


def test_as_many_connections_as_asked_for_are_kept_open():
    opened: list[object] = []
    together = threading.Barrier(20)

    class Storage(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            opened.append(self)
            super().setup()

        def do_GET(self) -> None:
            together.wait(60)
            self.send_response(200)
            for name, value in (("Content-Length", "0"), ("ETag", "x"), ("x-ms-version", "2019-07-07")):
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        from azure.core.credentials import AzureNamedKeyCredential

        account = Account(f"http://127.0.0.1:{server.server_port}/a", AzureNamedKeyCredential("a", "YQ=="))
        client = account.container("c", transport=transport.transport(20))
        with ThreadPoolExecutor(20) as workers:
            for _ in range(3):
                for done in [workers.submit(client.get_container_properties) for _ in range(20)]:
                    done.result()
        server.shutdown()
    assert len(opened) == 20


def test_what_holds_without_being_said_is_not_sent(tmp_path):
    """Over TLS too; what is sent is signed all the same."""
    from azure.core.credentials import AzureNamedKeyCredential

    with serving(tmp_path, lambda _: Answer(201, {"ETag": "x"})) as server:
        account = Account(f"{server.endpoint}/a", AzureNamedKeyCredential("a", "YQ=="), ca=server.ca)
        way = transport.transport(1, **account.connecting())
        account.container("c", transport=way).get_blob_client("b").stage_block("YQ==", b"x" * 1000)
    (asked,) = server.asked
    assert asked.body == b"x" * 1000
    assert {"authorization", "content-length", "host"} <= asked.headers.keys()
    assert not {name.lower() for name in transport.UNSAID} & asked.headers.keys()


def slow(port_of: list[int], taken: threading.Event, release: threading.Event) -> None:
    """A server that takes the connection, and what is sent only when it is told to."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port_of.append(listener.getsockname()[1])
        taken.set()
        client, _ = listener.accept()
        with client:
            release.wait(60)
            left = 16 * 1024 * 1024
            client.settimeout(60)
            with contextlib.suppress(ConnectionResetError):  # nobody waits any more
                while left > 0 and (data := client.recv(1 << 20)):
                    left -= len(data)
            if left > 0:
                return
            headers = "Content-Length: 0\r\nETag: x\r\nx-ms-request-id: 1\r\n"
            client.sendall(f"HTTP/1.1 201 Created\r\n{headers}\r\n".encode())


def test_a_piece_may_take_longer_than_connecting():
    """The time-out for connecting is short, and no bound on what is being sent."""
    from azure.core.credentials import AzureNamedKeyCredential

    port_of: list[int] = []
    taken, release = threading.Event(), threading.Event()
    threading.Thread(target=slow, args=(port_of, taken, release), daemon=True).start()
    assert taken.wait(60)
    account = Account(
        f"http://127.0.0.1:{port_of[0]}/a", AzureNamedKeyCredential("a", "YQ=="), connect_seconds=0.3
    )
    way = transport.transport(1, 20.0, **account.connecting())
    blob = account.container("c", transport=way).get_blob_client("b")
    threading.Timer(1.0, release.set).start()
    blob.stage_block("YQ==", b"x" * 16 * 1024 * 1024)


def test_whom_it_trusts_and_how_long_it_waits_is_the_account_s(tmp_path):
    """A client does not hand its own time-outs to a transport that it is given."""
    from azure.core.credentials import AzureNamedKeyCredential

    account = Account(
        "https://a.example", AzureNamedKeyCredential("a", "YQ=="), None, 1.5, 2.5, ca=tmp_path / "ca.pem"
    )
    config = transport.transport(1, **account.connecting()).connection_config
    assert (config.timeout, config.read_timeout, config.verify) == (1.5, 2.5, str(tmp_path / "ca.pem"))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a bound that Linux has")
def test_a_link_that_went_away_is_noticed_however_slow_it_may_be():
    """The server takes the connection and nothing more; what may be sent in a quarter of an hour is not."""
    from azure.core.credentials import AzureNamedKeyCredential
    from azure.core.exceptions import AzureError

    port_of: list[int] = []
    taken, release = threading.Event(), threading.Event()
    threading.Thread(target=slow, args=(port_of, taken, release), daemon=True).start()
    assert taken.wait(60)
    account = Account(
        f"http://127.0.0.1:{port_of[0]}/a", AzureNamedKeyCredential("a", "YQ=="), read_seconds=0.5
    )
    way = transport.transport(1, 900.0, **account.connecting())
    blob = account.container("c", transport=way).get_blob_client("b")
    began = time.monotonic()
    with pytest.raises(AzureError):
        blob.stage_block("YQ==", b"x" * 16 * 1024 * 1024, read_timeout=900)
    assert time.monotonic() - began < 60
    release.set()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a bound that Linux has")
def test_behind_a_proxy_connections_are_the_same(monkeypatch):
    """The name of the account is the proxy's to resolve; and what holds for the link holds to the proxy."""
    from azure.core.credentials import AzureNamedKeyCredential

    asked: list[str] = []
    bounds: list[int] = []
    connect = transport.HTTPConnection.connect

    def watched(connection: transport.HTTPConnection) -> None:
        connect(connection)
        bounds.append(connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("x-ms-error-code", "BlobNotFound")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setattr(transport.HTTPConnection, "connect", watched)
        account = Account(
            "http://acct.nowhere.invalid", AzureNamedKeyCredential("acct", "YQ=="), read_seconds=7
        )
        way = transport.transport(1, 33.0, **account.connecting())
        blob = account.container("c", transport=way).get_blob_client("b")
        with pytest.raises(RuntimeError, match="404 BlobNotFound"), account.talking("asking", RuntimeError):
            blob.get_blob_properties()
        server.shutdown()
    assert asked == ["http://acct.nowhere.invalid/c/b"] and bounds == [7_000]
