"""Sheets of the outbox: what the records of some scores hold, as columns.

The blocks of the journal are as large as the commits were. Unfolding makes sheets of them, each of one
release and kind, so that the way home reads few large ones, and what expires first lies together. A sheet
never changes, and goes with the last of its scores; what becomes of these is the matter of `lots`. Standard
library and msgspec only: arrays are `columns`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress
from typing import Any, NamedTuple

import msgspec

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.journal import OUTSIDE, PREDICTED, Block

MAX_ROWS = 500
"""Of one sheet: as many as retention removes in one transaction, so that bytes get free when rows go."""


class Sheet(Block, frozen=True):
    """The scores of n rows, in MessagePack: the fields of a block, and these."""

    sequences: bytes
    """int64, little-endian, shape (n,), rising."""
    times: bytes
    """When each was scored: µs since 1970, UTC; int64, little-endian, shape (n,)."""


class Made(NamedTuple):
    """A sheet as unfolding makes it."""

    numbers: list[int]
    """Sequences, rising."""
    oldest: int
    newest: int
    """When its scores were scored, first and last of all, µs."""
    release: str
    kind: str | None
    data: bytes


class Unfolded(NamedTuple):
    """What some blocks of the journal become."""

    sheets: list[Made]
    broken: list[tuple[int, int, str, bytes, int]]
    """Of blocks that cannot be read: sequence, scored_at, release, the whole block at its first score, and
    minus its schema."""


class _Alike(NamedTuple):
    """Blocks that can stand in one sheet, put together: n rows."""

    numbers: list[int]
    times: list[int]
    values: list[bytes]
    scores: list[bytes]
    flags: list[bytes]
    texts: dict[str, list[Any]]
    context: dict[str, list[Any]]


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sheet).decode


def unfolded(
    blocks: Iterable[tuple[int, int, int, str, int, bytes]], kind: Callable[[bool], str] | None
) -> Unfolded:
    """The sheets of blocks.

    Args:
        blocks: first sequence, rows, scored_at, release, schema and block of each, in order.
        kind: of a score, by whether it was predicted; None for none.
    """
    made = Unfolded([], [])
    found: dict[tuple[Any, ...], _Alike] = {}
    for first, number, scored_at, release, schema, data in blocks:
        try:
            block = journal.opened(data, schema, number)
        except ValueError:
            broken = -max(schema, 1)  # says which version could read it
            whole = chain([data], [b""] * (number - 1))
            made.broken.extend(
                (first + place, scored_at, release, part, broken) for place, part in enumerate(whole)
            )
            continue
        shape = release, block.names, tuple(block.texts), tuple(block.context)
        if (alike := found.get(shape)) is None:
            texts: dict[str, list[Any]] = {name: [] for name in block.texts}
            context: dict[str, list[Any]] = {name: [] for name in block.context}
            alike = found[shape] = _Alike([], [], [], [], [], texts, context)
        # Into columns at once: thousands of blocks of one row, kept, would keep the garbage collector busy.
        alike.numbers.extend(range(first, first + number))
        alike.times.extend([scored_at] * number)
        alike.values.append(block.values)
        alike.scores.append(block.scores)
        alike.flags.append(block.flags)
        for name, values in block.texts.items():
            alike.texts[name] += values
        for name, given in block.context.items():
            alike.context[name] += given
    for (release, names, *_), alike in found.items():
        made.sheets.extend(_laid_out(release, names, alike, kind))
    return made


def opened(data: bytes) -> Sheet:
    """A sheet, checked.

    Raises:
        ValueError: it is damaged.
    """
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"unreadable sheet: {error}") from error
    number = len(found.flags)
    if len(found.sequences) != 8 * number or len(found.times) != 8 * number:
        raise ValueError(f"unreadable sheet: it has not {number} rows")
    journal.check(found, number)
    return found


def sequences(sheet: Sheet) -> tuple[int, ...]:
    return struct.unpack(f"<{len(sheet.flags)}q", sheet.sequences)


def rows(sheet: Sheet) -> Iterator[tuple[int, int, float, int, int]]:
    """sequence, scored_at, score, predicted and outside of each, as in `scores`."""
    times = struct.unpack(f"<{len(sheet.flags)}q", sheet.times)
    for number, at, score, flag in zip(
        sequences(sheet), times, journal.scores(sheet), sheet.flags, strict=True
    ):
        yield number, at, score, flag & PREDICTED, (flag & OUTSIDE) >> 1


def _laid_out(
    release: str, names: tuple[str, ...], alike: _Alike, kind: Callable[[bool], str] | None
) -> Iterator[Made]:
    """The sheets of blocks that are alike."""
    flags = b"".join(alike.flags)
    kinds = {flag: kind(flag & PREDICTED != 0) if kind else None for flag in set(flags)}
    width = 8 * len(names)
    values, scores = (b"".join(part) for part in (alike.values, alike.scores))
    for one in sorted(set(kinds.values()), key=str):
        which = [kinds[flag] == one for flag in flags] if len({*kinds.values()}) > 1 else None
        numbers, times, bits = _only(alike.numbers, which), _only(alike.times, which), _cut(flags, 1, which)
        own_values, own_scores = _cut(values, width, which), _cut(scores, 8, which)
        texts = {name: _only(column, which) for name, column in alike.texts.items()}
        context = {name: _only(column, which) for name, column in alike.context.items()}
        for start in range(0, len(numbers), MAX_ROWS):
            part = slice(start, start + MAX_ROWS)
            found, when = numbers[part], times[part]
            sheet = Sheet(
                names,
                own_values[width * start : width * (start + len(found))],
                {name: column[part] for name, column in texts.items()},
                own_scores[8 * start : 8 * (start + len(found))],
                bits[part],
                {name: column[part] for name, column in context.items()},
                struct.pack(f"<{len(found)}q", *found),
                struct.pack(f"<{len(found)}q", *when),
            )
            yield Made(found, min(when), max(when), release, one, encode(sheet))


def _only(column: list[Any], which: list[bool] | None) -> list[Any]:
    return column if which is None else list(compress(column, which))


def _cut(data: bytes, size: int, which: list[bool] | None) -> bytes:
    """The same of bytes, of which each row has as many."""
    if which is None or not size:
        return data
    return b"".join(compress((data[at : at + size] for at in range(0, len(data), size)), which))
