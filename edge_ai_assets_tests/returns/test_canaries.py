"""What may not leave is in no outgoing byte, whatever the policy lists. See `canaries`."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox
from edge_ai_assets.returns.package import packages, parts
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets_tests import blocks
from edge_ai_assets_tests.returns import canaries

pytestmark = pytest.mark.usefixtures("counting")
AT = 1_760_000_000_000_000


def filled(outbox: Outbox, chance: random.Random, rows: int) -> None:
    """Scores with canaries, feedback with canaries on some of them."""
    first = outbox.counts().scored + 1
    records = [msgspec.json.encode(canaries.record(chance)) for _ in range(rows)]
    yes = [chance.random() < 0.5 for _ in range(rows)]
    outbox.append([blocks.batch(records, [0.5] * rows, yes, yes, key=f"{canaries.TEXT} {first}", at=AT)])
    notes = ["confirmed", f"{canaries.TEXT} note", f"call {canaries.NUMBER}", None]
    words = [
        Feedback(chance.randrange(first, first + rows), True, chance.choice(notes), canaries.TEXT, AT)
        for _ in range(max(1, rows // 100))
    ]
    outbox.add_feedback(words)


def drained(outbox: Outbox, step: Callable[[], Path | None]) -> list[Path]:
    while insights.derive(outbox):
        pass
    found = []
    while path := step():
        found.append(path)
    return found


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kinds=st.sets(st.sampled_from(canaries.KINDS)),
    rows=st.integers(1, 60),
    seed=st.integers(0, 1_000),
    contracts=st.booleans(),
)
def test_no_canary_is_in_any_outgoing_byte(
    tmp_path_factory, with_kinds, contract, key, kinds, rows, seed, contracts
):
    folder, chance = tmp_path_factory.mktemp("canary"), random.Random(seed)
    policy = with_kinds(*kinds, smallest=2)
    arguments = {"contracts": {"r1": contract} if contracts else {}, "key": key, "spool": folder, "at": AT}
    with Outbox(folder / "o.db") as outbox:
        filled(outbox, chance, rows)

        def step() -> Path | None:
            sealed = pack(outbox, "bergen", policy, **arguments, limit=25, events=canaries.events)
            return sealed and sealed.path

        for path in drained(outbox, step):
            assert canaries.leaks(path) == []
            packages.read(path, [key.public_key()])
        assert outbox.counts().conserved
        assert outbox.tally().waiting == 0


def test_the_search_finds_what_it_searches(tmp_path, with_kinds, contract, key):
    """A policy that lets the canaries out: each member that can hold one is found to."""
    listed = {"Secret": "as_is", "run": "as_is", "role": "as_is"}
    policy = with_kinds(*canaries.KINDS, smallest=2, **listed)
    with Outbox(tmp_path / "o.db") as outbox:
        filled(outbox, random.Random(1), 50)
        insights.derive(outbox)
        sealed = pack(
            outbox,
            "bergen",
            policy,
            {"r1": contract},
            key,
            tmp_path / "spool",
            at=AT,
            events=lambda mark, limit: ([b"CANARY"], parts.EventMark(1, 1)),
            running="CANARY",
        )
    found = " ".join(canaries.leaks(sealed.path))
    for name in ("manifest", parts.INSIGHTS, parts.FEEDBACK, parts.SKETCHES, parts.LINEAGE):
        assert name in found
    assert parts.HISTOGRAMS not in found


@pytest.mark.proof
def test_no_canary_of_a_million_records_leaves(tmp_path, with_kinds, contract, key):
    """With every kind listed, and all that `small` lists."""
    policy, chance = with_kinds(*canaries.KINDS), random.Random(1)
    made = 0
    with Outbox(tmp_path / "o.db") as outbox:
        for number in range(100):
            records = [msgspec.json.encode(canaries.record(chance)) for _ in range(10_000)]
            yes = [chance.random() < 0.5 for _ in records]
            scores = [0.5] * len(records)
            outbox.append([blocks.batch(records, scores, yes, yes, key=f"{canaries.TEXT} {number}", at=AT)])
            outbox.add_feedback([Feedback(1 + number, True, f"{canaries.TEXT} note", canaries.TEXT, AT)])

        def step() -> Path | None:
            sealed = pack(
                outbox,
                "bergen",
                policy,
                {"r1": contract},
                key,
                tmp_path / "spool",
                at=AT,
                events=canaries.events,
            )
            return sealed and sealed.path

        for path in drained(outbox, step):
            assert canaries.leaks(path) == []
            made += packages.peek(path).members[parts.INSIGHTS].rows
        assert made == 1_000_000
        assert outbox.recount().conserved
