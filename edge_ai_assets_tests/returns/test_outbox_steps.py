"""Any order of what a site does keeps every score once, in order, and counted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import insights, store
from edge_ai_assets.returns.outbox import outbox as outboxes
from edge_ai_assets.returns.outbox.outbox import Batch, Counts, Feedback, Outbox, PackageRow
from edge_ai_assets.returns.outbox.schema import RECORD_SCHEMA, ScoreRow
from edge_ai_assets_tests import blocks


def sequences(rows: list[ScoreRow]) -> list[int]:
    return [row.sequence for row in rows]


def package(number: int) -> PackageRow:
    return PackageRow(number, f"bergen-{number:08}.zip", "digest", "", 1, 0, 10, 1)


class Model:
    """What the outbox must hold: one row each score, in order."""

    def __init__(self) -> None:
        self.rows: list[ScoreRow] = []

    def add(self, number: int, release: str, kind: str, block: bytes) -> None:
        first = len(self.rows) + 1
        for row in range(number):
            fields: tuple[Any, ...] = (None, 0, 0, b"" if row else block, -2 if kind == "newer" else -1)
            if kind == "good":
                fields = (*scored(first + row), RECORD_SCHEMA)
            self.rows.append(ScoreRow(first + row, first, release, *fields, *[None] * 4))

    def of(self, keep: Callable[[ScoreRow], bool]) -> list[int]:
        return sequences(list(filter(keep, self.rows)))

    def change(self, found: list[int], **changes: Any) -> None:
        for sequence in found:
            self.rows[sequence - 1] = msgspec.structs.replace(self.rows[sequence - 1], **changes)


def scored(sequence: int) -> tuple[float, int, int, bytes]:
    """Score, predicted, outside and record: of each sequence others."""
    record = b'{"inputs":{"Flow":%d.5},"context":{"_row":%d}}' % (sequence, sequence)
    return 1 / sequence, sequence % 3 == 0, sequence % 2, record


def written(first: int, number: int) -> tuple[int, bytes]:
    found = (scored(first + row) for row in range(number))
    return blocks.block(
        [
            (msgspec.json.decode(record), score, bool(yes), bool(beyond))
            for score, yes, beyond, record in found
        ]
    )


BLOCKS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["good", "good", "good", "torn", "newer"])))
STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(BLOCKS.filter(bool), min_size=1, max_size=3)),
    st.tuples(st.just("repeat"), st.just(None)),
    st.tuples(st.sampled_from(["unfold", "derive", "seal", "newest"]), st.integers(1, 12)),
    st.tuples(st.sampled_from(["withheld", "quarantined", "expired"]), st.integers(1, 3)),
    st.tuples(st.just("rows"), st.tuples(st.integers(-2, 30), st.integers(-2, 30))),
    st.tuples(st.just("feedback"), st.integers(1, 30)),
    st.tuples(st.just("upload"), st.just(None)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25), st.integers(1, 6))
def test_any_steps_keep_every_score_once_and_counted(tmp_path_factory, steps, bound):
    """The rows, in blocks or not, are always those of a plain list."""
    path, model, keys = tmp_path_factory.mktemp("steps") / "o.db", Model(), dict[str, int]()
    with pytest.MonkeyPatch.context() as patch, Outbox(path) as outbox:
        patch.setattr(outboxes, "UNFOLD", bound)
        patch.setattr(store, "CHUNK", bound)
        for module in (outboxes, store):
            patch.setattr(module, "PAUSE_SECONDS", 0)
        for step, value in steps:
            _take(outbox, model, keys, step, value)
            last = len(model.rows)
            assert outbox.rows(1, last) == model.rows
            assert outbox.counts() == outbox.recount() == _counts(model)
            assert outbox.counts().conserved
            pending = outbox.oldest_pending()
            assert (pending is None) == (_counts(model).pending == 0)
            assert outbox.untouched() == any(
                row.kind is None and row.disposition is None for row in model.rows
            )
        held = outbox._db.execute("SELECT first, rows FROM journal ORDER BY first").fetchall()
        firsts = [*(first for first, _ in held), len(model.rows) + 1]
        assert [after - before for before, after in pairwise(firsts)] == [rows for _, rows in held]


def _take(outbox: Outbox, model: Model, keys: dict[str, int], step: str, value: Any) -> None:
    if step == "append":
        _append(outbox, model, keys, value)
    elif step == "repeat":
        for key, first in keys.items():
            (receipt,) = outbox.append([Batch(key, "other", 1, [(1, blocks.TORN)], b"mine")])
            assert (receipt.first, receipt.repeated, receipt.same) == (first, True, True)
    elif step == "unfold":
        outbox.unfold(value)
    elif step == "derive":
        _derive(outbox, model, value)
    elif step == "seal":
        rows, last = sequences(outbox.waiting(value)), outbox.last_package()
        number = last.number + 1 if last else 1
        outbox.seal(package(number), rows[1:], [], {"no": rows[:1]}, {})
        model.change(rows, package=number)
        model.change(rows[:1], disposition="withheld", reason="no")
    elif step == "upload":
        for item in outbox.unsent():
            outbox.uploaded(item.number, 5)
            sent = model.of(lambda row, n=item.number: row.package == n and row.disposition is None)
            model.change(sent, disposition="uploaded")
    elif step == "rows":
        first, last = value
        assert outbox.rows(first, last) == model.rows[max(first, 1) - 1 : max(last, 0)]
    elif step == "newest":
        assert outbox.newest(value) == model.rows[-value:]
    elif step == "feedback":
        if value <= len(model.rows):
            outbox.add_feedback([Feedback(value, True, None, "operator", 5)])
    else:
        waiting = sequences(outbox.waiting(value))
        outbox.dispose(step, {"why": waiting})
        model.change(waiting, disposition=step, reason="why")


def _append(outbox: Outbox, model: Model, keys: dict[str, int], shapes: list[Any]) -> None:
    batches, newer, at = [], [], len(model.rows)
    for shape in shapes:
        first, made = at + 1, []
        for number, kind in shape:
            block = (number, blocks.TORN) if kind == "torn" else written(at + 1, number)
            newer += [at + 1] if kind == "newer" else []
            made.append(block)
            at += number
        key = f"key {first}"
        keys[key] = first
        batches.append(Batch(key, f"release {first}", first, made, b"mine"))
    receipts = outbox.append(batches)
    for batch, shape, receipt in zip(batches, shapes, receipts, strict=True):
        assert (receipt.first, receipt.rows, receipt.repeated) == (batch.scored_at, batch.rows, False)
        for (number, block), (_, kind) in zip(batch.blocks, shape, strict=True):
            before = len(model.rows)
            model.add(number, batch.release, kind, block)
            model.change(list(range(before + 1, len(model.rows) + 1)), scored_at=batch.scored_at)
    for first in newer:
        outbox._db.execute("UPDATE journal SET schema = schema + 1 WHERE first = ?", (first,))


def _derive(outbox: Outbox, model: Model, limit: int) -> None:
    """At least `limit`: a block is classified whole, one that cannot be read by the next call."""
    waiting = [row for row in model.rows if row.kind is None and row.disposition is None]
    found = sum(insights.derive(outbox, limit).values())
    assert found >= min(limit, len(waiting))
    left = {row.sequence for row in outbox.rows(1, len(model.rows)) if not (row.kind or row.disposition)}
    new = [row.sequence for row in waiting if row.sequence not in left]
    assert len(new) == found
    for sequence in new:
        row = model.rows[sequence - 1]
        if row.schema == RECORD_SCHEMA:
            model.change([sequence], kind="anomaly" if row.predicted else "normal")
        else:
            why = ": it is damaged" if row.schema == -1 else " by a version that knows 1"
            reason = f"its block, of schema {-row.schema}, could not be read{why}"
            model.change([sequence], disposition="quarantined", reason=reason)


def _counts(model: Model) -> Counts:
    states = [row.disposition or "pending" for row in model.rows]
    names = ("uploaded", "withheld", "quarantined", "expired", "pending")
    return Counts(len(states), *(states.count(name) for name in names))
