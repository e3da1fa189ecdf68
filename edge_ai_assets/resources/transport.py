"""Connections for links that are long and lose packets: many at once, and a congestion control that takes a
lost packet for what it is there.

Over a satellite (600 ms, 2 % loss) Linux' default, and reno, send a fraction of what the link carries; BBR
(Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016) most of it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from requests import Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    from azure.core.pipeline.transport import RequestsTransport

CONGESTION_CONTROL = b"bbr"
PIECE = 64 * 1024
"""Bytes that are handed to the system at once."""


def transport(connections: int) -> RequestsTransport:
    """A transport of Azure's clients with so many connections that are kept open, as `transport=`.

    A connection beyond that number would be made anew for each request, and begin slowly each time.
    """
    from azure.core.pipeline.transport import RequestsTransport

    session = Session()
    adapter = _Adapter(pool_maxsize=connections, max_retries=0)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return RequestsTransport(session=session, session_owner=True)


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, socket_options=socket_options(), blocksize=PIECE, **options)


def socket_options() -> list[tuple[int, int, int | bytes]]:
    """urllib3's own, and BBR where this kernel has it and lets us use it."""
    options: list[tuple[int, int, int | bytes]] = list(HTTPConnection.default_socket_options)
    if hasattr(socket, "TCP_CONGESTION"):
        with socket.socket() as trial:
            try:
                trial.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)
            except OSError:
                return options
        options.append((socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL))
    return options
