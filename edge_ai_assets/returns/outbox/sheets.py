"""Sheets of the outbox: what the records of some scores hold, as columns, beside their narrow rows.

The blocks of the journal are as large as the commits were. Unfolding makes sheets of them, each of one
release and kind, so that the way home reads few large ones, and what expires first lies together. A sheet
never changes, and goes with the last of its scores. Standard library and msgspec only: arrays are `columns`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.journal import PREDICTED, Block

MAX_ROWS = 500
"""Of one sheet: as many as retention removes in one transaction, so that bytes get free when rows go."""


class Sheet(Block, frozen=True):
    """The scores of n rows, in MessagePack: the fields of a block, and these."""

    sequences: bytes
    """int64, little-endian, shape (n,), rising."""
    times: bytes
    """When each was scored: µs since 1970, UTC; int64, little-endian, shape (n,)."""


class Unfolded(NamedTuple):
    """What some blocks of the journal become."""

    rows: list[tuple[Any, ...]]
    """sequence, scored_at, release, score, predicted, outside, kind, the sheet's first sequence; in order."""
    sheets: list[tuple[int, int, int, bytes]]
    """First and last sequence, rows, and the sheet."""
    broken: list[tuple[int, int, str, bytes, int]]
    """Of blocks that cannot be read: sequence, scored_at, release, the whole block at its first score, and
    minus its schema."""


class _Piece(NamedTuple):
    first: int
    scored_at: int
    release: str
    shape: tuple[Any, ...]
    """What blocks must have in common to stand in one sheet."""
    block: Block


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sheet).decode


def unfolded(
    blocks: Iterable[tuple[int, int, int, str, int, bytes]], kind: Callable[[bool], str] | None
) -> Unfolded:
    """The rows and sheets of blocks.

    Args:
        blocks: first sequence, rows, scored_at, release, schema and block of each, in order.
        kind: of a score, by whether it was predicted; None for none.
    """
    made = Unfolded([], [], [])
    pieces: list[_Piece] = []
    for first, number, scored_at, release, schema, data in blocks:
        try:
            block = journal.opened(data, schema, number)
        except ValueError:
            broken = -max(schema, 1)  # says which version could read it
            texts = chain([data], [b""] * (number - 1))
            made.broken.extend(
                (first + place, scored_at, release, text, broken) for place, text in enumerate(texts)
            )
        else:
            shape = release, block.names, tuple(block.texts), tuple(block.context)
            pieces.append(_Piece(first, scored_at, release, shape, block))
    alike: dict[tuple[Any, ...], list[_Piece]] = {}
    for piece in pieces:
        alike.setdefault(piece.shape, []).append(piece)
    for some in alike.values():
        _lay_out(some, kind, made)
    made.rows.sort()
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


def _lay_out(pieces: Sequence[_Piece], kind: Callable[[bool], str] | None, made: Unfolded) -> None:
    """Add the rows and sheets of blocks that are alike."""
    blocks = [piece.block for piece in pieces]
    release, names = pieces[0].release, blocks[0].names
    lengths = [len(block.flags) for block in blocks]
    numbers = [
        one for piece, n in zip(pieces, lengths, strict=True) for one in range(piece.first, piece.first + n)
    ]
    times = [at for piece, n in zip(pieces, lengths, strict=True) for at in [piece.scored_at] * n]
    flags = b"".join(block.flags for block in blocks)
    scores = [score for block in blocks for score in journal.scores(block)]
    width = 8 * len(names)
    joined = b"".join(block.values for block in blocks)
    values = [joined[at : at + width] for at in range(0, len(joined), width)] if width else [b""] * len(flags)
    texts = {name: [one for block in blocks for one in block.texts[name]] for name in blocks[0].texts}
    context = {name: [one for block in blocks for one in block.context[name]] for name in blocks[0].context}
    kinds = {flag: kind(flag & PREDICTED != 0) if kind else None for flag in set(flags)}
    places: dict[str | None, list[int]] = {}
    for place, flag in enumerate(flags):
        places.setdefault(kinds[flag], []).append(place)
    for one, all_places in places.items():
        for start in range(0, len(all_places), MAX_ROWS):
            part = all_places[start : start + MAX_ROWS]
            found, given = [numbers[at] for at in part], [scores[at] for at in part]
            when, bits = [times[at] for at in part], bytes([flags[at] for at in part])
            sheet = Sheet(
                names,
                b"".join([values[at] for at in part]),
                {name: [column[at] for at in part] for name, column in texts.items()},
                struct.pack(f"<{len(part)}d", *given),
                bits,
                {name: [column[at] for at in part] for name, column in context.items()},
                struct.pack(f"<{len(part)}q", *found),
                struct.pack(f"<{len(part)}q", *when),
            )
            made.sheets.append((found[0], found[-1], len(part), encode(sheet)))
            made.rows.extend(
                (number, at, release, score, bit & PREDICTED, bit >> 1 & 1, one, found[0])
                for number, at, score, bit in zip(found, when, given, bits, strict=True)
            )
