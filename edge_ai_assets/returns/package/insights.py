"""The scores that leave, as a table: columns of several parts put together, in order of their sequences.

What may be in them is the policy's matter; the bytes they become are `members`'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_ai_assets.returns.outbox.columns import Column, Columns
from edge_ai_assets.returns.package.members import column, struct
from edge_ai_assets.returns.package.parts import INSIGHTS, schemas

if TYPE_CHECKING:
    import pyarrow as pa

OWN = {"_score": "score", "_predicted": "predicted"}
"""Values that have a column of their own. A pseudonym of one has none and stays among the fields."""


def insights(parts: Sequence[tuple[Columns, Mapping[str, Column]]]) -> pa.Table:
    """The table of some scores and what of each leaves, by name; `fields` is a struct, or not there."""
    import pyarrow as pa

    schema = schemas()[INSIGHTS]
    names = sorted(set[str]().union(*(leaves for _, leaves in parts)))
    made: dict[str, Any] = {
        "sequence": _joined([scores.sequences for scores, _ in parts], np.int64),
        "scored_at": _joined([scores.times for scores, _ in parts], np.int64),
        "release": _repeated([(scores.release, len(scores)) for scores, _ in parts]),
        "kind": _repeated([(scores.kind, len(scores)) for scores, _ in parts]),
        "score": None,
        "predicted": None,
    }
    fields: dict[str, pa.Array] = {}
    for name in names:
        found = column([leaves.get(name, [None] * len(scores)) for scores, leaves in parts])
        if name in OWN and found is not None and found.type == schema.field(OWN[name]).type:
            made[OWN[name]] = found
        elif found is not None:
            fields[name] = found
    rows = len(made["sequence"])
    columns = {
        field.name: pa.nulls(rows, field.type)
        if made[field.name] is None
        else pa.array(made[field.name], field.type)
        for field in schema
        if field.name != "fields"
    }
    table = pa.table(columns | ({"fields": struct(fields)} if fields else {}))
    order = np.argsort(made["sequence"], kind="stable")
    return table if (np.diff(order) == 1).all() else table.take(order)


def _repeated(texts: Sequence[tuple[str | None, int]]) -> pa.Array:
    """Each so many times."""
    import pyarrow as pa

    return pa.concat_arrays(
        [pa.array([], pa.string()), *(pa.repeat(pa.scalar(text, pa.string()), n) for text, n in texts)]
    )


def _joined(arrays: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *arrays])
