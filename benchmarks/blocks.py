"""Blocks of the outbox's journal for the benchmarks, from columns, as the scoring service makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.journal import PREDICTED, Block


def of(
    columns: Mapping[str, np.ndarray],
    texts: Mapping[str, Sequence[str | None]],
    scores: np.ndarray,
    context: Mapping[str, Sequence[Any]],
) -> Iterator[tuple[int, bytes]]:
    """Rows and bytes of each block, for `Batch.blocks`.

    Args:
        columns: n numbers of each input, NaN where it is missing or a category.
        texts: n texts of each input that is a category.
        scores: n, predicted positive from 0.5 on.
        context: n values of each.
    """
    wide = np.zeros((len(scores), len(columns)), "<f8")
    for position, values in enumerate(columns.values()):
        wide[:, position] = values
    for start in range(0, len(scores), journal.MAX_ROWS):
        part = slice(start, start + journal.MAX_ROWS)
        given = scores[part].astype("<f8")
        yield (
            len(given),
            journal.encode(
                Block(
                    tuple(columns),
                    wide[part].tobytes(),
                    {name: list(values[part]) for name, values in texts.items()},
                    given.tobytes(),
                    ((given >= 0.5) * PREDICTED).astype(np.uint8).tobytes(),
                    {name: list(values[part]) for name, values in context.items()},
                )
            ),
        )


def cut(made: Iterable[tuple[int, bytes]], rows: int) -> Iterator[tuple[int, bytes]]:
    """The same rows in blocks of at most so many."""
    for number, data in made:
        block = journal.opened(data, journal.BLOCK_SCHEMA, number)
        width = 8 * len(block.names)
        for start in range(0, number, rows):
            end = min(start + rows, number)
            part = Block(
                block.names,
                block.values[width * start : width * end],
                {name: values[start:end] for name, values in block.texts.items()},
                block.scores[8 * start : 8 * end],
                block.flags[start:end],
                {name: values[start:end] for name, values in block.context.items()},
            )
            yield end - start, journal.encode(part)
