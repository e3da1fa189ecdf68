"""Connections for links that are long and lose packets: many at once, and a congestion control that takes a
lost packet for what it is there.

Over a satellite (600 ms, 2 % loss) Linux' default, and reno, send a fraction of what the link carries; BBR
(Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016) most of it. But BBR takes
the rate of short bursts, each after an answer to the last, for what the link carries, and sends the next ones
ever slower: within a minute a block takes three round trips instead of one and a half. So it begins anew with
each request.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

from requests import Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from azure.core.pipeline.transport import RequestsTransport

CONGESTION_CONTROL = b"bbr"
UNSAID = frozenset({"Accept", "Accept-Encoding", "Connection"})
"""Headers of the clients that say what holds without them; they go with each block."""
PIECE = 64 * 1024
"""Bytes that are handed to the system at once."""


def transport(connections: int, sending_seconds: float = 60.0, **connecting: Any) -> RequestsTransport:
    """A transport of Azure's clients with so many connections that are kept open, as `transport=`.

    A connection beyond that number would be made anew for each request, and begin slowly each time.

    Args:
        sending_seconds: in which PIECE must leave. The clients have one time-out for that and for connecting,
            and on a slow link that many connections share, a piece takes longer than connecting may.
        connecting: see `Account.connecting`: clients do not hand their own to a transport that they get. Its
            read_timeout is also how long nothing of what was sent may be acknowledged: a link that went away
            is noticed then, however slow it was allowed to be.
    """
    from azure.core.pipeline.transport import RequestsTransport

    session = Session()
    silence = connecting.get("read_timeout")
    adapter = _Adapter(sending_seconds, silence, pool_maxsize=connections, max_retries=0)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return RequestsTransport(session=session, session_owner=True, **connecting)


class _Adapter(HTTPAdapter):
    def __init__(self, sending_seconds: float, silence_seconds: float | None, **options: Any) -> None:
        self._pools = _pools(sending_seconds)
        self._ours: dict[str, Any] = {"socket_options": socket_options(silence_seconds), "blocksize": PIECE}
        super().__init__(**options)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **self._ours, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy.lower().startswith("socks"):
            return super().proxy_manager_for(proxy, **options)
        manager = super().proxy_manager_for(proxy, **self._ours, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pools(sending_seconds: float) -> dict[str, type[HTTPConnectionPool]]:
    """Pools whose connections have another time-out as soon as they stand, TLS included."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(sending_seconds)

        def putrequest(self, *request: Any, **options: Any) -> None:
            _begin_anew(self.sock)
            super().putrequest(*request, **options)

        def putheader(self, header: Any, *values: Any) -> None:
            if header not in UNSAID:
                super().putheader(header, *values)

    class Secure(Plain, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _begin_anew(connection: socket.socket | ssl.SSLSocket | None) -> None:
    """Let BBR, where it is used, forget what it made of earlier requests: changing to another does that."""
    if connection is None or not hasattr(socket, "TCP_CONGESTION"):
        return
    used = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
    if used == b"bbr":
        for control in (b"reno", used):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control)


def socket_options(silence_seconds: float | None = None) -> list[tuple[int, int, int | bytes]]:
    """urllib3's own, a bound on silence where the system has one (RFC 5482), and BBR where this kernel has it
    and lets us use it."""
    options: list[tuple[int, int, int | bytes]] = list(HTTPConnection.default_socket_options)
    if silence_seconds is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(silence_seconds * 1000)))
    if hasattr(socket, "TCP_CONGESTION"):
        with socket.socket() as trial:
            try:
                trial.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)
            except OSError:
                return options
        options.append((socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL))
    return options
