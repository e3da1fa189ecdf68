"""CSV bodies: rows to score, feedback on scores, and an answer for who asked for CSV.

Text becomes columns of values of the right kind here; which values are plausible is the contract's, what a
row belongs to `context`'s. A score's id is checked where those of JSON are, in `requests`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf, isnan, nan
from typing import Any, NoReturn

import msgspec
import numpy as np

from edge_ai_assets.scoring.bodies.csv_table import table
from edge_ai_assets.scoring.context import CONTEXT
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import MAX_FEEDBACK, FeedbackItem

FEEDBACK = ("id", "correct", "note", "role")
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
MISSING = frozenset(("", "nan", "NaN", "null", "NULL"))

_json_numbers = msgspec.json.Decoder(list[float | None]).decode


def columns(
    body: bytes, contract: Contract
) -> tuple[dict[str, np.ndarray | list[Any]], dict[str, list[Any]]]:
    """Rows to score.

    Args:
        body: as `csv_table.table` says. The columns are inputs and some of CONTEXT, separated by commas, or
            by semicolons or tabs if so the names are known. Empty is missing; a number also as nan or null.
        contract: says which columns are numbers and which are text.

    Returns:
        Inputs by name: numbers float64, shape (n,), NaN where missing; categories n texts, None where
        missing. And context by name, n values each: texts, `_row` whole numbers; None where missing.

    Raises:
        Refused: 400 it is no UTF-8; 413 too many rows; 422 anything else, row (from 0) and column are named.
    """
    kinds = {item.name: item.kind for item in contract.inputs}
    inputs: dict[str, np.ndarray | list[Any]] = {}
    context: dict[str, list[Any]] = {}
    for name, cells in table(body, (*kinds, *CONTEXT), "an input of this model").items():
        if kinds.get(name) == "number":
            inputs[name] = _numbers(name, cells)
        elif name in kinds:
            inputs[name] = _texts(cells)
        else:
            context[name] = _wholes(name, cells) if name == "_row" else _texts(cells)
    return inputs, context


def feedback(body: bytes) -> list[FeedbackItem]:
    """What users said about scores.

    Args:
        body: as in `columns`; the columns are id, correct (true, yes, 1, false, no, 0, in any case), note and
            role, the last two optional.

    Returns:
        One for each row; an empty note or role is none.

    Raises:
        Refused: as in `columns`.
    """
    cells = table(body, FEEDBACK, f"a column of feedback, which are {', '.join(FEEDBACK)}", MAX_FEEDBACK)
    for name in ("id", "correct"):
        if name not in cells:
            raise Refused(422, f"field {name!r} is missing")
    items: list[dict[str, Any]] = [{"id": cell} for cell in cells["id"]]
    for row, (item, cell) in enumerate(zip(items, cells["correct"], strict=True)):
        truth = TRUTH.get(cell.strip().lower())
        if truth is None:
            _refuse(row, "correct", "must be true or false", cell)
        item["correct"] = truth
    for name in ("note", "role"):
        for item, cell in zip(items, cells.get(name, ()), strict=name in cells):
            if cell:
                item[name] = cell
    return [_item(row, item) for row, item in enumerate(items)]


def _item(row: int, fields: dict[str, Any]) -> FeedbackItem:
    try:
        return msgspec.convert(fields, FeedbackItem)
    except msgspec.ValidationError as error:
        raise Refused(422, f"row {row}: {error}") from error


def answer(
    site: str, first: int, scores: Sequence[Any], predicted: Sequence[Any], outside: Sequence[Any]
) -> bytes:
    """The answer to scored rows: a header and one row for each, in their order; RFC 4180, no quoting needed.

    Args:
        site: its name, which has neither separators nor quotes in it.
        first: number of the first score.
        scores: n numbers; None and NaN leave the field empty.
        predicted: n labels.
        outside: n times whether the row holds an input outside the trained range.
    """
    marks = ("false", "true")
    rows = zip(np.asarray(scores, np.float64).tolist(), predicted, outside, strict=True)
    lines = [
        f"{site}/{number},{'' if isnan(score) else repr(score)},{marks[bool(label)]},{marks[bool(far)]}\r\n"
        for number, (score, label, far) in enumerate(rows, first)
    ]
    return ("id,score,predicted,outside\r\n" + "".join(lines)).encode()


def _numbers(name: str, cells: list[str]) -> np.ndarray:
    """Cells as numbers, float64, NaN where missing."""
    # As one JSON list, because that is by far the fastest: almost every number is written as in JSON. A list
    # of another length comes from cells that hold its comma.
    listed = ",".join(["null" if cell in MISSING else cell for cell in cells])
    try:
        values = _json_numbers(f"[{listed}]")
        if len(values) == len(cells):
            return np.array(values, np.float64)
    except msgspec.DecodeError:
        pass  # the slow way accepts what JSON does not, or says what is wrong
    plain = NUMBER.fullmatch
    values = [float(cell) if plain(cell) else _number(name, row, cell) for row, cell in enumerate(cells)]
    if inf in values or -inf in values:
        row = next(row for row, value in enumerate(values) if value in (inf, -inf))
        _refuse(row, name, "must be finite and within float32", cells[row])
    return np.array(values, np.float64)


def _number(name: str, row: int, cell: str) -> float:
    stripped = cell.strip(" \t\r\n")
    if stripped.lower() in ("", "nan", "null"):
        return nan
    if stripped.lower().lstrip("+-") in ("inf", "infinity"):
        _refuse(row, name, "must be finite", cell)
    if not NUMBER.fullmatch(stripped):
        _refuse(row, name, "must be a number with a decimal point", cell)
    return float(stripped)


def _texts(cells: list[str]) -> list[str | None]:
    return [cell or None for cell in cells]


def _wholes(name: str, cells: list[str]) -> list[int | None]:
    """Cells as whole numbers of at most 19 digits; `context` knows how large they may be."""
    for row, cell in enumerate(cells):
        if cell and not (cell.isascii() and cell.isdecimal() and len(cell) <= 19):
            _refuse(row, name, "must be a whole number from 0 to 2^63 - 1", cell)
    return [int(cell) if cell else None for cell in cells]


def _refuse(row: int, name: str, bound: str, cell: str) -> NoReturn:
    kind = "a number" if NUMBER.fullmatch(cell.strip()) else "text" if cell else "empty:"
    raise Refused(422, f"row {row}: {name!r} {bound}, it is {kind} {cell[:60]!r}")
