"""Examples for the document of the service, made of a contract: sent as they are, they score."""

from __future__ import annotations

import csv
import io
from typing import Any

from edge_ai_assets.scoring.contract import Contract, Input

Schema = dict[str, Any]

DIGITS = 4
"""Significant digits of a number, if it stays in its trained range so."""


def middle(item: Input) -> float | str | None:
    """A value that an input may well have: the middle of its trained range, or its first category."""
    if item.kind == "category":
        return item.categories[0] if item.categories else None
    low, high = item.trained_low, item.trained_high
    if low is None or high is None:
        low, high = item.low, item.high
    if low is None or high is None:
        return next((bound for bound in (low, high) if bound is not None), 0.0)
    exact = low / 2 + high / 2
    rounded = float(f"{exact:.{DIGITS}g}")
    return rounded if low <= rounded <= high else exact


def record(contract: Contract) -> Schema:
    """A row that scores: every input at its middle."""
    return {item.name: middle(item) for item in contract.inputs}


def columns(contract: Contract, rows: int) -> Schema:
    """The same row `rows` times, by columns."""
    return {name: [value] * rows for name, value in record(contract).items()}


def tensors(contract: Contract) -> list[Schema]:
    """The same row as tensors of the Open Inference Protocol."""
    return [
        {
            "name": item.name,
            "shape": [1],
            "datatype": "FP64" if item.kind == "number" else "BYTES",
            "data": [middle(item)],
        }
        for item in contract.inputs
    ]


def csv_text(row: Schema) -> str:
    """A header and one row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(row)
    writer.writerow(["" if value is None else value for value in row.values()])
    return text.getvalue()
