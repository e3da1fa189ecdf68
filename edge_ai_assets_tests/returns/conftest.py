"""A small use case, its contract, and an outbox to put scores in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets import usecase
from edge_ai_assets.returns.egress import policy as policies
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.scoring.contract import Contract, Input, Reference
from edge_ai_assets.usecase import FREE_TEXT, EgressField, UseCase
from edge_ai_assets_tests import blocks

USECASE = """
name: small
runs: {column: run}
time: {columns: [time]}
label: {column: fault, positive: [1]}
features:
  - {name: "Pressure [bar]", unit: bar, range: [0, 25]}
  - {name: Flow, unit: m³/h}
  - {name: Secret}
  - {name: Only counted}
  - {name: Serial, kind: category, categories: ["4711", "4712"]}
  - {name: Type, kind: category, categories: [centrifugal, screw]}
egress:
  kinds: [anomaly, feedback, histogram]
  minimum_group_size: 10
  notes: [confirmed, sensor fault]
  fields:
    - {name: _time, leaves: as_is}
    - {name: _run, leaves: pseudonymised}
    - {name: _score, leaves: rounded, digits: 2}
    - {name: _predicted, leaves: as_is}
    - {name: _correct, leaves: as_is}
    - {name: _note, leaves: as_is}
    - {name: "Pressure [bar]", leaves: rounded, digits: 1}
    - {name: Flow, leaves: as_is}
    - {name: Only counted, leaves: aggregated}
    - {name: Serial, leaves: pseudonymised}
    - {name: Type, leaves: as_is}
sites: [{name: bergen}]
"""
SITE_KEY = b"site key of the tests, 32 bytes."
OWN = {"_time", "_run", "_asset", "_score", "_predicted", "_correct", "_note", "_role"}
LISTED = ("P-1", "P-2", "P-3", "CANARY", "CANARY run", "CANARY pump")
"""The free text that leaves where a test lets any leave as it is."""
MICROSECONDS = 1_760_000_000_000_000


@pytest.fixture(scope="session")
def small() -> UseCase:
    return usecase.loads(USECASE)


@pytest.fixture(scope="session")
def policy(small: UseCase) -> Policy:
    return Policy(small, SITE_KEY)


@pytest.fixture(scope="session")
def contract(small: UseCase) -> Contract:
    inputs = [Input(f.name, f.kind, f.unit, f.name, categories=f.categories or ()) for f in small.features]
    inputs += [Input(f"{f.name} [mean 60]", "number", f.unit, f.name) for f in small.numbers]
    references = [Reference(f.name, (5.0, 10.0), (1, 1, 1), 0.2) for f in small.numbers]
    return Contract("small", tuple(inputs), 0.5, "fault", tuple(references))


@pytest.fixture(scope="session")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"0123456789abcdef0123456789abcdef")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as opened:
        yield opened


@pytest.fixture(scope="session")
def record() -> Callable[..., bytes]:
    """The record of a score; keyword arguments replace inputs, by name."""

    def make(row: int = 0, **inputs: Any) -> bytes:
        values = {
            "Pressure [bar]": 3.14159,
            "Flow": 7.5,
            "Secret": 99.25,
            "Only counted": 1.0,
            "Serial": "4711",
        }
        context = {"_time": "2026-02-03T04:05:06", "_run": "run 1", "_row": row}
        return json.dumps({"inputs": {**values, "Type": "screw", **inputs}, "context": context}).encode()

    return make


@pytest.fixture(scope="session")
def batch(record: Callable[..., bytes]) -> Callable[..., Batch]:
    """A batch of rows, every second one an anomaly."""

    def make(rows: int = 1, key: str | None = None, release: str = "r1", at: int = MICROSECONDS) -> Batch:
        predicted = [row % 2 == 0 for row in range(rows)]
        records = [record(row) for row in range(rows)]
        scores = [0.987 if anomaly else 0.123 for anomaly in predicted]
        return blocks.batch(records, scores, predicted, key=key, release=release, at=at)

    return make


@pytest.fixture(scope="session")
def with_kinds(small: UseCase) -> Callable[..., Policy]:
    """The policy of the small use case with other kinds, and fields that leave in another way."""

    def make(*kinds: str, smallest: int = 10, **leaves: str | None) -> Policy:
        changed = {f"_{name}" if f"_{name}" in OWN else name: how for name, how in leaves.items()}
        fields = [f for f in small.egress.fields if f.name not in changed]
        fields += [
            EgressField(name=name, leaves=how, values=LISTED if how == "as_is" and name in FREE_TEXT else ())
            for name, how in changed.items()
            if how
        ]
        update = {"kinds": kinds, "fields": tuple(fields), "minimum_group_size": smallest}
        return Policy(small.model_copy(update={"egress": small.egress.model_copy(update=update)}), SITE_KEY)

    return make


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting by the stated rule, so that what is tested is what the policy does with the counts."""

    def counted(values: Any, reference: Reference) -> Any:
        import numpy as np

        return np.histogram(values, [-np.inf, *reference.edges, np.inf])[0]

    monkeypatch.setattr(policies, "_counted", counted)
