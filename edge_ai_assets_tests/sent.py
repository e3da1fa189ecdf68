"""Return packages as sites send them, with something in every member, and the place where they arrive."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets.returns.egress.policy import Histogram
from edge_ai_assets.returns.inbox import inbox, tables
from edge_ai_assets.returns.outbox.schema import Tally
from edge_ai_assets.returns.package import lineage, sketches
from edge_ai_assets.returns.package.lineage import Check, Event
from edge_ai_assets.returns.package.packages import build
from edge_ai_assets.returns.package.parts import Aggregate, Insight, Sketch, Word, name_of

DAY = 24 * 3600 * 1_000_000
START = 1_760_000_000_000_000
KEY = Ed25519PrivateKey.from_private_bytes(b"0123456789abcdef0123456789abcdef")
SKETCH = sketches.make(np.array([1.0, 2.0, 3.0]))


def event(n: int, site: str, at: int = START) -> bytes:
    """Every third is a failed check."""
    run = f"00000000-0000-4000-8000-{n:012}"
    if n % 3:
        return lineage.encode(
            Event(n, "materialization", ("site", "scores"), site, at, run, "score_sites", {"files": n})
        )
    check = Check("serving", False, "ERROR")
    return lineage.encode(Event(n, "check", ("site", "deployment"), site, at, run, check=check))


def package(site: str, number: int, previous: str, *, rows: int = 3, events: int = 2, **parts: Any) -> bytes:
    """Package `number` of a chain whose packages have so many rows and events, on a day of its own."""
    first, last, at = (number - 1) * rows + 1, number * rows, START + number * DAY
    n = (number - 1) * events
    content = {
        "site": site,
        "number": number,
        "previous": previous,
        "policy": "p" * 64,
        "created_at": START,
        "first": first,
        "last": last,
        "insights": [
            Insight(first + i, at, "r1", "anomaly", 0.9, True, {"Flow": number + i / 10}) for i in range(rows)
        ],
        "feedback": [Word(number, first, at, "r1", True, None, None, {"Flow": 1})],
        "histograms": [Histogram("r1", "Flow", 30, (10, 20))],
        "aggregates": [Aggregate("r1", at // 3_600_000_000 * 3_600_000_000, rows + 2, rows, 0, 1.5)],
        "sketches": [Sketch("r1", "Flow", 3, sketches.K, SKETCH)],
        "lineage": [event(n + 1 + i, site) for i in range(events)],
        "lineage_last": n + events if events else 0,
        "complete": last,
        "counts": Tally(last + 2, last, 0, 0, 0, 2),
        "expired": {"full": number},
        "inventory": ["a" * 64, "b" * 64],
        "running": "sha256:" + "c" * 64,
        "key": KEY,
    }
    return build(**{**content, **parts})


def chain(site: str = "bergen", packages: int = 4, **parts: Any) -> list[tuple[str, bytes]]:
    """Packages of one site, in order: (name, bytes)."""
    found: list[tuple[str, bytes]] = []
    previous = ""
    for number in range(1, packages + 1):
        data = package(site, number, previous, **parts)
        previous = hashlib.sha256(data).hexdigest()
        found.append((name_of(site, number), data))
    return found


class Arrivals:
    """An uplink folder and the tables behind it."""

    def __init__(self, folder: Path, sites: tuple[str, ...] = ("bergen", "narvik", "oslo")) -> None:
        self.root, self.tables, self.quarantine = folder / "uplink", folder / "tables", folder / "quarantine"
        self.keys = {site: [KEY.public_key()] for site in sites}

    def put(self, *named: tuple[str, bytes], site: str = "bergen") -> None:
        (self.root / site).mkdir(parents=True, exist_ok=True)
        for name, data in named:
            (self.root / site / name).write_bytes(data)

    def receive(self, **options: Any) -> inbox.Received:
        return inbox.receive(self.root, self.tables, self.keys, self.quarantine, **options)

    def digest(self) -> str:
        """Of all that the tables hold, but for times of receipt and the order in which it came."""
        found = hashlib.sha256()
        for name, key in tables.KEYS.items():
            rows = tables.rows(self.tables, name)
            for row in rows:
                row.pop("received_at", None), row.pop("imported_at", None)
            assert len({tuple(row[column] for column in key) for row in rows}) == len(rows), name
            found.update(repr((name, sorted(map(repr, rows)))).encode())
        return found.hexdigest()
