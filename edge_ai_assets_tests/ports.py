"""Ports for servers that must be told one, and keep it when they are started again.

A port that the system gave and that was closed again may be the next one it gives: to a test beside this one,
or as the near end of any connection. So these lie below those that it gives, are drawn at random, and none is
given twice.
"""

from __future__ import annotations

import os
import random
import socket

FIRST, LAST = 20_000, 32_000
"""Linux gives those from 32,768 on (net.ipv4.ip_local_port_range)."""
_given: set[int] = set()
_chance = random.Random(os.urandom(8))


def free_ports(count: int) -> list[int]:
    """So many ports of this machine on which nobody listens."""
    found: list[int] = []
    while len(found) < count:
        port = _chance.randrange(FIRST, LAST)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as trying:
            try:
                trying.bind(("", port))
            except OSError:
                continue
        found.append(port)
    return found


def free_port() -> int:
    return free_ports(1)[0]
