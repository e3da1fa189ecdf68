"""Scores as columns: what the way home computes with. Made of parts of sheets, or of rows with records.

Which scores these are is `kept`'s matter, what they mean and may tell the packages'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edge_ai_assets.returns.outbox import sheets
from edge_ai_assets.returns.outbox.journal import OUTSIDE, PREDICTED
from edge_ai_assets.returns.outbox.kept import Part
from edge_ai_assets.returns.outbox.schema import Record, ScoreRow, Value, decode
from edge_ai_assets.returns.outbox.sheets import Sheet

Column = np.ndarray | Sequence[Value]
"""float64, NaN is missing, or any values."""


class Columns(msgspec.Struct, frozen=True):
    """n scores of one release and kind, whose records have the same inputs; n of each, in one order."""

    release: str
    kind: str | None
    sequences: np.ndarray
    """int64."""
    times: np.ndarray
    """When they were scored: µs since 1970, UTC; int64."""
    scores: np.ndarray
    """float64, NaN is none."""
    predicted: np.ndarray
    outside: np.ndarray
    """Both bool."""
    inputs: Mapping[str, Column]
    time: Sequence[str | None]
    """When the row was measured, as its request said; ISO 8601."""
    run: Sequence[str | None]
    asset: Sequence[str | None]
    """The plant asset it is of."""

    def __len__(self) -> int:
        return len(self.sequences)


def of_parts(parts: Iterable[Part], broken: defaultdict[str, list[int]]) -> Iterator[Columns]:
    """The scores of parts, those that are alike together.

    Args:
        parts: in any order.
        broken: gets the scores that cannot be read, by reason.
    """
    chosen: defaultdict[tuple[str, str, bytes], list[int]] = defaultdict(list)
    for part in parts:
        yield from of_rows(part.rows, broken)
        if not part.rows:
            chosen[part.release, part.kind, part.sheet] += part.sequences
    found: defaultdict[tuple[Any, ...], list[tuple[Sheet, list[int]]]] = defaultdict(list)
    for (release, kind, data), sequences in chosen.items():
        try:
            sheet = sheets.opened(data)
            if not set(sequences) <= set(sheets.sequences(sheet)):
                raise ValueError("unreadable sheet: it has not all of its scores")
        except ValueError as error:
            broken[str(error)] += sequences
            continue
        shape = release, kind, sheet.names, tuple(sheet.texts), tuple(sheet.context)
        found[shape].append((sheet, sequences))
    for (release, kind, *_), alike in found.items():
        yield _joined(release, kind, alike)


def of_rows(rows: Iterable[ScoreRow], broken: defaultdict[str, list[int]]) -> Iterator[Columns]:
    """The same of rows."""
    found: defaultdict[tuple[Any, ...], list[tuple[ScoreRow, Record]]] = defaultdict(list)
    for row in rows:
        try:
            record = decode(row)
        except ValueError as error:
            broken[str(error)].append(row.sequence)
        else:
            found[row.release, row.kind, tuple(record.inputs)].append((row, record))
    for (release, kind, names), alike in found.items():
        yield of_records(release, kind, names, alike)


def of_records(
    release: str, kind: str | None, names: Sequence[str], rows: Sequence[tuple[ScoreRow, Record]]
) -> Columns:
    """Rows of one release and kind with their records, which have these inputs, in this order."""
    own, records = zip(*rows, strict=True)
    inputs = list(zip(*(record.inputs.values() for record in records), strict=True)) or [()] * len(names)
    return Columns(
        release,
        kind,
        np.array([row.sequence for row in own], np.int64),
        np.array([row.scored_at for row in own], np.int64),
        np.array([np.nan if row.score is None else row.score for row in own], np.float64),
        np.array([bool(row.predicted) for row in own]),
        np.array([bool(row.outside) for row in own]),
        dict(zip(names, inputs, strict=True)),
        [record.context.time for record in records],
        [record.context.run for record in records],
        [record.context.asset for record in records],
    )


def _joined(release: str, kind: str | None, parts: Sequence[tuple[Sheet, list[int]]]) -> Columns:
    """Some rows of sheets that are alike."""
    alike = [sheet for sheet, _ in parts]
    names, texts, context = alike[0].names, alike[0].texts, alike[0].context
    chosen = np.concatenate([np.isin(np.frombuffer(sheet.sequences, "<i8"), some) for sheet, some in parts])
    whole = bool(chosen.all())

    def array(kind: str, pieces: Iterable[bytes], *shape: int) -> np.ndarray:
        found = np.frombuffer(b"".join(pieces), kind).reshape(-1, *shape)
        return found if whole else found[chosen]

    def values(pieces: Iterable[Sequence[Any]]) -> list[Any]:
        found = [one for piece in pieces for one in piece]
        return found if whole else [one for one, yes in zip(found, chosen, strict=True) if yes]

    flags = array("u1", (sheet.flags for sheet in alike))
    wide = array("<f8", (sheet.values for sheet in alike), len(names)) if names else np.empty((0, 0))
    inputs: dict[str, Column] = {
        name: np.ascontiguousarray(wide[:, place]) for place, name in enumerate(names) if name not in texts
    }
    inputs |= {name: values(sheet.texts[name] for sheet in alike) for name in texts}
    own = {
        name: values(sheet.context[name] for sheet in alike) if name in context else [None] * len(flags)
        for name in ("_time", "_run", "_asset")
    }
    return Columns(
        release,
        kind,
        array("<i8", (sheet.sequences for sheet in alike)),
        array("<i8", (sheet.times for sheet in alike)),
        array("<f8", (sheet.scores for sheet in alike)),
        flags & PREDICTED != 0,
        flags & OUTSIDE != 0,
        inputs,
        own["_time"],
        own["_run"],
        own["_asset"],
    )
