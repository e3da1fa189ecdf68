"""The connections of the uplink: many, kept open, and with a congestion control for lossy links."""

from __future__ import annotations

import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_ai_assets.resources import transport
from edge_ai_assets.resources.account import Account


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


def test_as_many_connections_as_asked_for_are_kept_open():
    opened: list[object] = []
    together = threading.Barrier(20)

    class Storage(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            opened.append(self)
            super().setup()

        def do_GET(self) -> None:
            together.wait(10)
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
